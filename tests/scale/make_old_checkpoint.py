"""Makes the stored checkpoints that later versions must be able to restore. Run it once for each layout of the state.

python -m tests.scale.make_old_checkpoint
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax
from tests.scale.problem import batches, loss

STOP, LATER = 8, 20
OPTIMIZERS = {
    "ramda": ramda_jax.ramda(
        0.1, ramda_jax.GroupLasso(), 0.006, averaging=ramda_jax.sqrt_growth(0.5, 6), restarts=(6,)
    ),
    "prox_adamw": ramda_jax.prox_adamw(0.01, ramda_jax.GroupLasso(), 0.02),
}


def path_of(name):
    return Path(__file__).parent / "fixtures" / f"{name}-0.1.npz"


def make_params():
    rng = np.random.default_rng(0)

    def layer(*shape):
        kernel = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        return {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(shape[-1])}

    return {"conv": layer(2, 2, 8, 4), "first": layer(4, 4), "second": layer(4, 8)}


def by_path(tree):
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def train(name, params, state, start):
    """Trains from step `start` to the next stop; returns (params, state)."""
    optimizer = OPTIMIZERS[name]

    @jax.jit
    def step(params, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    for batch in batches((STOP if start < STOP else LATER) - start, start=start):
        params, state = step(params, state, batch)
    return params, state


def restore(name, stored):
    """(params, state) with every leaf looked up by its path; `stored` must have exactly these leaves."""
    target = jax.eval_shape(lambda params: (params, OPTIMIZERS[name].init(params)), make_params())
    flat, structure = jax.tree_util.tree_flatten_with_path(target)
    names = [jax.tree_util.keystr(path) for path, _ in flat]
    assert set(names) == {key for key in stored if not key.startswith("later")}
    for key, (_, leaf) in zip(names, flat, strict=True):
        assert (stored[key].shape, stored[key].dtype) == (leaf.shape, leaf.dtype), key
    return structure.unflatten([jnp.asarray(stored[key]) for key in names])


def main():
    for name, optimizer in OPTIMIZERS.items():
        params = make_params()
        params, state = train(name, params, optimizer.init(params), 0)
        later, _ = train(name, params, state, STOP)
        arrays = by_path((params, state)) | {f"later{key}": value for key, value in by_path(later).items()}
        path_of(name).parent.mkdir(exist_ok=True)
        np.savez_compressed(path_of(name), **arrays)
        alive = {k: float((v != 0).mean()) for k, v in by_path(later).items()}
        print(path_of(name).name, alive)


if __name__ == "__main__":
    main()
