"""Questions that the papers leave open: what each part does, and how much of the structure is the problem's own."""
