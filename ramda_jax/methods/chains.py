"""What the methods' factories share."""

from ramda_jax.regularizers.null import Null
from ramda_jax.solvers.base import Solver, check_solver
from ramda_jax.structure.assignment import assignment


def check_method(regularizer, strength, solver, metric):
    """The strength to use, after the checks that need regularizer, strength and metric together.

    Args:
        regularizer: what the user gave.
        strength: what the user gave, or None.
        solver: what the user gave, or None.
        metric: the kind of the method's metric, `"scalar"` or `"diagonal"`.

    Returns:
        strength, or 0 where there is no regularizer.

    Raises:
        ValueError: a regularizer without strength; a solver that cannot solve it in such a metric.
    """
    named = [one for one in assignment(regularizer).regularizers if not isinstance(one, Null)]
    if strength is None:
        if named:
            raise ValueError(
                f"`strength` (lambda) must be given with the regularizer {named[0]!r}: no default is right for all "
                "networks; start from 1e-4 and see `ramda_jax.metrics` for what it does."
            )
        return 0.0
    if isinstance(solver, Solver):
        for one in named:
            check_solver(solver, one, metric)
    return strength
