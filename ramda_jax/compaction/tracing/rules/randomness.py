"""Primitives that draw random numbers. The number at an entry depends on the whole shape."""

from ramda_jax.compaction.tracing.rules.rule import Rule

_NAMES = """
    random_bits random_clone random_fold_in random_gamma random_seed random_split random_unwrap random_wrap
    rng_bit_generator rng_uniform threefry2x32
""".split()


def _drawn(walk, visit):
    for value in visit.inputs:
        for label in value.labels:
            walk.indices.freeze(label, "a random key")
    shapes = [variable.aval.shape for variable in visit.equation.outvars]
    return [[walk.indices.axis(size, "numbers drawn at random along it") for size in shape] for shape in shapes]


RULES = {name: Rule(_drawn) for name in _NAMES}
