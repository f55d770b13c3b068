"""The strength of the regularizer at each step: a number, a schedule, or found by a `Target`."""
