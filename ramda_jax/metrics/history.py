"""A record of the supports of a run, which shows whether the structure has settled."""

import io
import json
import operator
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

import numpy as np

from ramda_jax.files import write_whole
from ramda_jax.metrics.support import check_supports
from ramda_jax.typing import Support
from ramda_jax.validation import check_count

_FORMAT = 1
#: The errors of reading a damaged archive. `zipfile` also raises them for unknown versions and impossible offsets.
_DAMAGES = (
    ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError,
    OSError, RuntimeError,
)  # fmt: skip


class StructureHistory:
    """Records supports during training, to see whether the structure has settled.

    It keeps the last support and, for each group, the step of its last change: 9 bytes a group, for a run of any
    length. It keeps `max_records` steps. When there are more, it merges pairs of neighbours and adds their changes. So
    you can add the support of every step of a long run.

    Args:
        max_records: the largest number of entries of `steps` and `changes`, an int >= 3.

    Attributes:
        steps: the steps at which a support was added; all of them as long as there are at most `max_records`, and
            always the first and the last.
        changes: for each of `steps` the number of groups that changed since the step before it in the list, summed over
            the supports added in between; 0 for the first.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> history = ramda_jax.metrics.StructureHistory()
        >>> for step, alive in enumerate([[True, True], [True, False], [True, False], [True, False]]):
        ...     _ = history.add(step, {"kernel": jnp.array(alive)})
        >>> history.last_change, history.stable_share(duration=3), history.has_settled(duration=2)
        (1, 0.5, True)
        >>> history.last_changes
        {'kernel': 1}
    """

    def __init__(self, max_records: int = 10_000) -> None:
        check_count("max_records", max_records, 3)
        self._max_records = int(max_records)
        self._support = None
        self._changed_at = {}
        self.steps: list[int] = []
        self.changes: list[int] = []

    def add(self, step: SupportsIndex, support: Support) -> int:
        """Adds the support at `step`.

        The support is copied, so that its arrays may be donated or written to afterwards.

        Returns:
            The number of groups that changed since the last support; 0 for the first.

        Raises:
            ValueError: the step does not come after the last, or has more than 64 bits; the support has other leaves or
                shapes. The history is then unchanged.
            TypeError: the step is not a whole number, or the support does not consist of boolean arrays.
        """
        try:
            step = operator.index(step)
        except TypeError:
            raise TypeError(f"`step` must be a whole number, got {step!r}; use the number of steps taken.") from None
        if self.steps and step <= self.steps[-1]:
            raise ValueError(f"`step` must grow, got {step!r} after {self.steps[-1]!r}; add supports in order.")
        if not -(2**63) <= step < 2**63:
            raise ValueError(f"`step` must be a number of 64 bits, got {step!r}; use the number of steps taken.")
        if not isinstance(support, Mapping):
            raise TypeError(
                f"A support must be a dict of boolean arrays by path, got {support!r}; use `metrics.support`."
            )
        alive = {path: np.array(leaf) for path, leaf in support.items()}
        for path, leaf in alive.items():
            if leaf.dtype != bool or not isinstance(path, str):
                raise TypeError(
                    f"A support must be a dict of boolean arrays by path, got {leaf.dtype} at {path!r}; use "
                    "`metrics.support`."
                )
        changed = 0
        if self._support is None:
            self._changed_at = {path: np.full(leaf.shape, step, np.int64) for path, leaf in alive.items()}
        else:
            check_supports(self._support, alive)
            for path, leaf in alive.items():
                moved = leaf != self._support[path]
                self._changed_at[path][moved] = step
                changed += int(np.count_nonzero(moved))
        self._support = alive
        if len(self.steps) == self._max_records:
            self._halve()
        self.steps.append(step)
        self.changes.append(changed)
        return changed

    def _halve(self):
        # The first stays alone, and so does the last if it has no neighbour left.
        pairs = range(1, len(self.steps), 2)
        steps = [self.steps[min(i + 1, len(self.steps) - 1)] for i in pairs]
        changes = [sum(self.changes[i : i + 2]) for i in pairs]
        self.steps[1:], self.changes[1:] = steps, changes

    @property
    def last_change(self) -> int:
        """The last step at which a support differed from the one before; the first step if none did."""
        return max(self.last_changes.values(), default=self.steps[0])

    @property
    def last_changes(self) -> dict[str, int]:
        """`last_change` of each leaf, by path: which layers have settled, where others have not."""
        self._check_not_empty()
        return {path: int(at.max(initial=self.steps[0])) for path, at in self._changed_at.items()}

    def stable_share(self, duration: float) -> float:
        """The share of groups that have not changed for the last `duration` steps, in [0, 1]."""
        self._check_not_empty()
        _check_duration(duration)
        limit = self.steps[-1] - duration
        total = sum(at.size for at in self._changed_at.values())
        stable = sum(int(np.sum(at <= limit)) for at in self._changed_at.values())
        return stable / total if total else 1.0

    def has_settled(self, duration: float) -> bool:
        """Whether no group has changed for the last `duration` steps."""
        _check_duration(duration)
        return self.steps[-1:] != [] and self.steps[-1] - self.last_change >= duration

    def save(self, file: str | Path) -> None:
        """Writes the history to `file`, a NumPy archive; an existing file is replaced once all is written."""
        names = sorted(self._changed_at)
        record = {"format": _FORMAT, "max_records": self._max_records, "names": names, "is_empty": not self.steps}
        # Number the arrays, because a name in the archive is the name of a file.
        arrays: dict[str, Any] = {f"changed_at_{number}": self._changed_at[name] for number, name in enumerate(names)}
        arrays |= {f"support_{number}": (self._support or {})[name] for number, name in enumerate(names)}
        arrays |= {"record": np.array(json.dumps(record))}
        arrays |= {"steps": np.array(self.steps, np.int64), "changes": np.array(self.changes, np.int64)}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        write_whole(Path(file), content.getvalue())

    @classmethod
    def load(cls, file: str | Path) -> "StructureHistory":
        """Reads a history that `save` has written.

        Raises:
            ValueError: the file is of another kind, or damaged.
            FileNotFoundError: there is no such file.

        Example:
            >>> import pathlib, tempfile, jax.numpy as jnp, ramda_jax
            >>> history = ramda_jax.metrics.StructureHistory()
            >>> history.add(1, {"kernel": jnp.array([True, False])})
            0
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     history.save(pathlib.Path(folder) / "history.npz")
            ...     again = ramda_jax.metrics.StructureHistory.load(pathlib.Path(folder) / "history.npz")
            >>> again.add(2, {"kernel": jnp.array([True, True])})
            1
        """
        content = Path(file).read_bytes()
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                record = json.loads(str(arrays["record"]))
                if record["format"] != _FORMAT:
                    raise ValueError(f"format {record['format']}")
                history = cls(record["max_records"])
                history.steps, history.changes = arrays["steps"].tolist(), arrays["changes"].tolist()
                parts = {
                    name: (arrays[f"changed_at_{number}"], arrays[f"support_{number}"])
                    for number, name in enumerate(record["names"])
                }
                if not all(
                    at.shape == alive.shape and at.dtype == np.int64 and alive.dtype == bool
                    for at, alive in parts.values()
                ):
                    raise ValueError("arrays that do not belong together")
                if len(history.steps) != len(history.changes) or bool(history.steps) == record["is_empty"]:
                    raise ValueError("steps and changes that do not belong together")
        except _DAMAGES as error:
            raise ValueError(
                f"'{file}' must be what `StructureHistory.save` has written, but is not ({error}); save it again."
            ) from error
        history._changed_at = {name: at for name, (at, _) in parts.items()}
        history._support = None if record["is_empty"] else {name: alive for name, (_, alive) in parts.items()}
        return history

    def _check_not_empty(self):
        if not self.steps:
            raise ValueError("The history must have a support, got none yet; call `add(step, support)` first.")


def _check_duration(duration: Any) -> None:
    if np.ndim(duration) or not _is_real(duration):
        raise TypeError(f"`duration` must be a number of steps, got {duration!r}; use for example 1000.")
    if not float(duration) >= 0:
        raise ValueError(f"`duration` must be a number of steps of at least 0, got {duration!r}; use for example 1000.")


def _is_real(value: Any) -> bool:
    return isinstance(value, SupportsFloat) and not isinstance(value, (str, bytes, complex))
