"""The mark by which `check_last` asks the parts of a chain to step to a known point.

Optax's wrappers pass unknown keyword arguments on. With this argument `proximal_point` returns its value in every entry
instead of W_hat, and `iterate_averaging` does not average. It is a module of its own below both of them.
"""

#: The keyword argument of `update`.
PROBE_POINT = "ramda_jax_target"
