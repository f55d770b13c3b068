"""The papers' data: readers of the published formats, and batches of what they read."""
