"""Kernels of low rank as two factors: how each kind of model is told to use them."""
