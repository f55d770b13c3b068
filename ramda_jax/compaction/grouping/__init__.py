"""Groups from the trace: those of each leaf, those that span leaves, and what each of them is worth."""
