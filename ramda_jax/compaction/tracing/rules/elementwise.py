"""Primitives that work entry by entry."""

from ramda_jax.compaction.tracing.rules.rule import Rule

#: Each output entry depends on the entries at the same position of the inputs; inputs of rank 0 and axes of length 1
#: are broadcast.
_NAMES = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz complex conj
    convert_element_type copy cos cosh custom_lin digamma div eq eq_to erf erf_inv erfc exp
    exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le le_to lgamma log log1p log2
    logistic lt lt_to max min mul mulhi name ne neg nextafter not one_minus_square or polygamma polynomial
    population_count pow real reduce_precision regularized_incomplete_beta rem round rsqrt select_n sharding_constraint
    shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta
""".split()

#: As many outputs as inputs, each a copy of its input.
_COPIES = ("optimization_barrier", "device_put", "pvary", "reshard")


def _elementwise(walk, visit):
    [variable] = visit.equation.outvars
    shape = variable.aval.shape
    arrays = [value for value in visit.inputs if value.shape]
    if any(len(value.shape) != len(shape) for value in arrays):
        return None
    labels = []
    for axis, size in enumerate(shape):
        along = [value.labels[axis] for value in arrays if value.shape[axis] == size]
        for other in along[1:]:
            walk.indices.unify(along[0], other)
        labels.append(along[0])
    return [labels]


def _copies(walk, visit):
    return [value.labels for value in visit.inputs]


RULES = {name: Rule(_elementwise) for name in _NAMES} | {name: Rule(_copies) for name in _COPIES}
