"""Checkpoints of a run, by Orbax: the whole state, and where in the run it was."""

import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """The newest state of a run, in a folder."""

    def __init__(self, folder):
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    @property
    def latest(self):
        """How many steps the newest has taken, or None."""
        return self._manager.latest_step()

    def save(self, step, state, seconds):
        """Saves, unless this step is saved already.

        Args:
            step: how many have been taken.
            state: a pytree.
            seconds: of training in the round so far.
        """
        if step != self.latest:
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), clock=ocp.args.JsonSave({"seconds": seconds})
            )
            self._manager.save(step, args=items)

    def restore(self, like):
        """(state, seconds) of the newest, onto the structure and the devices of `like`."""
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target), clock=ocp.args.JsonRestore())
        found = self._manager.restore(self.latest, args=items)
        return found["state"], found["clock"]["seconds"]
