"""After compaction: further training, the states of optimizers, and the report."""
