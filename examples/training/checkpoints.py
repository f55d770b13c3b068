"""Checkpoints of a run with Orbax: the whole state, and everything that the run has written until then.

The log and the report are made from the checkpoint, so that they cannot disagree with it.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from examples.training.errors import RunError, one_line, writing

#: The entries of a checkpoint in addition to the state.
NOTES = {"run", "taken", "seconds", "records", "digest"}


class Checkpoints:
    """The newest state of a run in a folder. Its checkpoints are numbered consecutively.

    Raises:
        RunError: the folder cannot be read or written.
    """

    def __init__(self, folder):
        self._folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        with writing(folder):
            folder.mkdir(exist_ok=True)  # Orbax would report an error only at the first save
            self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        self._saved = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    @property
    def exists(self):
        """Whether there is a checkpoint."""
        return self._manager.latest_step() is not None

    def save(self, state, *, run, taken, seconds, records):
        """Saves a checkpoint, unless this moment is saved already.

        Args:
            state: a pytree.
            run: the settings that identify it, as a dict.
            taken: the number of steps taken.
            seconds: the time of training in the round so far.
            records: all records of the log.

        Raises:
            RunError: the checkpoint cannot be written; the last one is unchanged.
        """
        if self._saved == (taken, len(records)):
            return
        notes = {"run": run, "taken": taken, "seconds": seconds, "records": records, "digest": digest(state)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes))
        latest = self._manager.latest_step()
        try:
            self._manager.save(0 if latest is None else latest + 1, args=items)
        except Exception as error:  # Orbax passes on any error of its parts
            raise RunError(
                f"The checkpoint in {self._folder} cannot be written ({one_line(error)}); make room. The one before "
                "is unchanged, and the same command continues from there."
            ) from error
        self._saved = (taken, len(records))

    def notes(self):
        """The arguments of `save` in the newest checkpoint, except for the state.

        Raises:
            RunError: it cannot be read.
        """
        return self._restore(notes=ocp.args.JsonRestore())["notes"]

    def restore(self, like):
        """(state, notes) of the newest checkpoint, with the structure and the devices of `like`.

        Raises:
            RunError: it cannot be read, or is not what was saved.
        """
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        found = self._restore(state=ocp.args.StandardRestore(target), notes=ocp.args.JsonRestore())
        state, notes = found["state"], found["notes"]
        if digest(state) != notes["digest"]:
            raise self._damaged("its numbers are not those that were saved")
        self._saved = (notes["taken"], len(notes["records"]))
        return state, notes

    def _restore(self, **items):
        try:
            found = self._manager.restore(self._manager.latest_step(), args=ocp.args.Composite(**items))
            notes = found["notes"]
            if not isinstance(notes, dict) or notes.keys() != NOTES:
                raise ValueError("it is of another version of these examples")
            return found
        except Exception as error:  # any error, as above
            raise self._damaged(one_line(error)) from error

    def _damaged(self, reason):
        return RunError(
            f"The checkpoint in {self._folder} cannot be read ({reason}); put back a copy of it, or delete that folder "
            "to train from the start. Nothing was changed."
        )


def digest(state):
    """The digest of all numbers of a state, in order."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        total.update(f"{array.dtype} {array.shape} ".encode())
        total.update(array.tobytes())
    return total.hexdigest()
