"""The support: which groups are alive, and how it moves as training goes."""

import jax.numpy as jnp
import numpy as np

from ramda_jax.structure.assignment import assign


def regularized_leaves(regularizer, params):
    """(path, leaf, resolved regularizer) of the leaves that get one."""
    return [(path, leaf, one) for path, leaf, one in assign(regularizer, params) if one is not None]


def support(regularizer, params) -> dict:
    """Which groups (entries, for regularizers of single entries) are not exactly zero.

    Args:
        regularizer: what the optimizer was given.
        params: the parameters, or what `eval_params` returns.

    Returns:
        A dict from the paths of regularized leaves to boolean arrays, of the leaf's rank, with length one
        along the axes inside a group. No tolerance: alive is what is not 0.0.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"bias": jnp.zeros(2), "kernel": jnp.array([[0.0, 0.0], [0.0, 1.0]])}
        >>> ramda_jax.metrics.support(ramda_jax.GroupLasso(), params)
        {'kernel': Array([[False],
               [ True]], dtype=bool)}
    """
    return {path: one.support(leaf) for path, leaf, one in regularized_leaves(regularizer, params)}


def changed_groups(before: dict, after: dict):
    """How many groups are alive in one of two supports and not in the other: an int32 scalar.

    Args:
        before, after: supports of the same leaves, as `support` returns them.

    Raises:
        ValueError: the two are of different leaves.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> before = {"kernel": jnp.array([True, False, False])}
        >>> int(ramda_jax.metrics.changed_groups(before, {"kernel": jnp.array([False, True, False])}))
        2
    """
    if before.keys() != after.keys():
        raise ValueError(
            f"Two supports must be of the same leaves, got {sorted(before)} and {sorted(after)}; use one regularizer "
            "for both."
        )
    return sum((jnp.sum(before[path] != after[path]) for path in before), jnp.zeros([], jnp.int32))


class StructureHistory:
    """Watches supports as training goes: has the structure settled?

    Keeps the last support and, for each group, the step of its last change; nothing else, so that it can be
    fed every step of a long run.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> history = ramda_jax.metrics.StructureHistory()
        >>> for step, alive in enumerate([[True, True], [True, False], [True, False], [True, False]]):
        ...     _ = history.add(step, {"kernel": jnp.array(alive)})
        >>> history.last_change, history.stable_share(duration=3), history.has_settled(duration=2)
        (1, 0.5, True)
    """

    def __init__(self):
        self._support = None
        self._changed_at = {}
        #: Steps at which a support was added, and how many groups had changed since the one before.
        self.steps: list[int] = []
        self.changes: list[int] = []

    def add(self, step, support) -> int:
        """Adds the support at `step`; returns how many groups changed since the last one (0 for the first).

        Raises:
            ValueError: a step that does not come after the last, or a support of other leaves.
        """
        if self.steps and step <= self.steps[-1]:
            raise ValueError(f"`step` must grow, got {step!r} after {self.steps[-1]!r}; add supports in order.")
        alive = {path: np.asarray(leaf) for path, leaf in support.items()}
        changed = 0
        if self._support is None:
            self._changed_at = {path: np.full(leaf.shape, step) for path, leaf in alive.items()}
        else:
            changed = int(changed_groups(self._support, alive))
            for path, leaf in alive.items():
                self._changed_at[path] = np.where(leaf != self._support[path], step, self._changed_at[path])
        self._support = alive
        self.steps.append(int(step))
        self.changes.append(changed)
        return changed

    @property
    def last_change(self) -> int:
        """The last step at which a support differed from the one before; the first step if none did."""
        self._check_not_empty()
        return max((int(at.max()) for at in self._changed_at.values() if at.size), default=self.steps[0])

    def stable_share(self, duration) -> float:
        """The share of groups that have not changed for the last `duration` steps, in [0, 1]."""
        self._check_not_empty()
        limit = self.steps[-1] - duration
        total = sum(at.size for at in self._changed_at.values())
        stable = sum(int(np.sum(at <= limit)) for at in self._changed_at.values())
        return stable / total if total else 1.0

    def has_settled(self, duration) -> bool:
        """Whether no group has changed for the last `duration` steps."""
        return self.steps[-1:] != [] and self.steps[-1] - self.last_change >= duration

    def _check_not_empty(self):
        if not self.steps:
            raise ValueError("The history is empty; call `add(step, support)` first.")
