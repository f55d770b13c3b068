"""Labels of single indices: which of them are one, which are products of others, and why some must stay."""
