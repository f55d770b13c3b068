"""Kernels of low rank as two factors, and how each kind of model uses them."""
