"""A zoo of small architectures, each with dead units at known places: what compaction leaves of it, beside the least."""
