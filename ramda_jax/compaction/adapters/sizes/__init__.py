"""The sizes that layers remember, read from smaller arrays, and other numbers of modules."""
