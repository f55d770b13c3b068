"""A zoo of small architectures with dead units at known places: compares what compaction leaves with the least."""
