"""A zoo of small architectures with dead units at known places: what compaction leaves of each, beside the least."""
