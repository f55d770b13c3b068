"""Independent references in NumPy and SciPy, in float64 or wider. They do not import the package."""
