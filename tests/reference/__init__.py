"""Independent references in NumPy and SciPy, in float64 or wider: nothing in here imports the package."""
