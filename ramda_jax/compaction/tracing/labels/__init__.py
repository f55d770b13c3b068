"""Labels of single indices: which of them are the same, which are products of others, and why some must stay."""
