"""The papers' data sets: readers of the published formats, and batches."""
