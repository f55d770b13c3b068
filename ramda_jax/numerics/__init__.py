"""Numbers: counts, dtypes and limits of sums, norms, the largest of many, the cube root, shardings, trees of arrays."""

from ramda_jax.numerics.cbrt import cbrt, cbrt_for_step
from ramda_jax.numerics.counts import count, exact_count, total
from ramda_jax.numerics.dtypes import (
    LAST_COUNT,
    at_step,
    next_count,
    promoted,
    scalars_dtype,
    sums_dtype,
    weight_of_average,
)
from ramda_jax.numerics.limits import gradient_limit, limited, reachable, saturated
from ramda_jax.numerics.long_sums import add_evenly
from ramda_jax.numerics.norms import (
    any_nonzero,
    differentiable_group_norms,
    group_norms,
    group_scales,
    norm,
    norms_for_step,
    one_pass_norms,
)
from ramda_jax.numerics.selection import is_nan_key, largest, sort_keys
from ramda_jax.numerics.sharding import gathered, with_type_sharding
from ramda_jax.numerics.trees import copy, zeros_for_sums

__all__ = [
    "LAST_COUNT",
    "add_evenly",
    "any_nonzero",
    "at_step",
    "cbrt",
    "cbrt_for_step",
    "copy",
    "count",
    "differentiable_group_norms",
    "exact_count",
    "gathered",
    "gradient_limit",
    "group_norms",
    "group_scales",
    "is_nan_key",
    "largest",
    "limited",
    "next_count",
    "norm",
    "norms_for_step",
    "one_pass_norms",
    "promoted",
    "reachable",
    "saturated",
    "scalars_dtype",
    "sort_keys",
    "sums_dtype",
    "total",
    "weight_of_average",
    "with_type_sharding",
    "zeros_for_sums",
]
