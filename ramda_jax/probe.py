"""How `check_last` asks the parts of a chain for a point that is known beforehand.

Optax's wrappers hand keyword arguments that they do not know on to what they wrap. Given this one, `proximal_point`
puts out its value in every entry in place of W_hat, and `iterate_averaging` goes there without averaging.
"""

#: The keyword argument of `update`.
PROBE_POINT = "ramda_jax_target"
