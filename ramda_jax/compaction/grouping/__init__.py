"""Groups from the trace: groups of each leaf, groups that span leaves, and what each of them saves."""
