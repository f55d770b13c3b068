"""How XLA is made to run the computations fast: nothing here changes a value but by rounding."""
