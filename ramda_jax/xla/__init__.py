"""Makes XLA run the computations fast. Nothing here changes a value, except by rounding."""
