"""Numbers: dtypes of sums, norms, the cube root, shardings, trees of arrays."""

from ramda_jax.numerics.cbrt import cbrt
from ramda_jax.numerics.dtypes import LAST_COUNT, at_step, next_count, scalars_dtype, sums_dtype, weight_of_average
from ramda_jax.numerics.norms import group_norms, group_scales, norm
from ramda_jax.numerics.sharding import gathered, with_type_sharding
from ramda_jax.numerics.trees import copy, zeros_for_sums

__all__ = [
    "LAST_COUNT",
    "at_step",
    "cbrt",
    "copy",
    "gathered",
    "group_norms",
    "group_scales",
    "next_count",
    "norm",
    "scalars_dtype",
    "sums_dtype",
    "weight_of_average",
    "with_type_sharding",
    "zeros_for_sums",
]
