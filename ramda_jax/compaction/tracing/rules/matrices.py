"""Primitives that work on the last axes as a whole, such as a Fourier transform or a factorisation.

The axes before these pass.
"""

from ramda_jax.compaction.tracing.rules.rule import Rule

#: The last two axes of each of their inputs are a matrix.
_OF_MATRICES = """
    cholesky cholesky_update eig eigh geqrf geqp3 hessenberg householder_product lu ormqr qr schur svd
    symmetric_product tridiagonal tridiagonal_solve
""".split()


def _on_last(number):
    def rule(walk, visit):
        first = visit.inputs[0]
        count = len(first.shape) - (number or len(visit.equation.params["fft_lengths"]))
        before = first.labels[:count]
        for value in visit.inputs:
            for label, other in zip(before, value.labels[:count], strict=True):
                walk.indices.unify(label, other)
            for label in value.labels[count:]:
                walk.indices.freeze(label, _reason(visit))
        shapes = [variable.aval.shape for variable in visit.equation.outvars]
        return [[*before, *(walk.indices.axis(size, _reason(visit)) for size in shape[count:])] for shape in shapes]

    return rule


def _reason(visit):
    return f"{visit.name} works on it as a whole"


def _triangular_solve(walk, visit):
    """The matrix stays; the axis of the right-hand sides passes."""
    matrix, sides = visit.inputs
    along = len(sides.shape) - (2 if visit.equation.params["left_side"] else 1)
    for label, other in zip(matrix.labels[:-2], sides.labels[:-2], strict=True):
        walk.indices.unify(label, other)
    for label in (*matrix.labels[-2:], sides.labels[along]):
        walk.indices.freeze(label, _reason(visit))
    return [sides.labels]


RULES = {name: Rule(_on_last(2)) for name in _OF_MATRICES} | {
    "fft": Rule(_on_last(None)),
    "triangular_solve": Rule(_triangular_solve),
}
