"""Units, what can be removed by zeros: who reads them, along which axes of which leaves, and in which groups."""
