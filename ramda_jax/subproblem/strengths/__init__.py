"""How strong the regularizer is at each step: a number, a schedule, or what a `Target` finds."""
