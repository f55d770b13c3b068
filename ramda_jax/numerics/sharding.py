"""Shardings that are a part of an array's type, as on meshes whose axes are explicit."""

import jax


def with_type_sharding(x: jax.Array, sharding: jax.sharding.NamedSharding) -> jax.Array:
    """x in `sharding`, that of another array's type; needed only on meshes with explicit axes, elsewhere x itself."""
    return x if jax.typeof(x).sharding == sharding else jax.sharding.reshard(x, sharding)


def gathered(x: jax.Array, axis: int | None = None) -> jax.Array:
    """x with no axis sharded in its type: `reshape` and the SVD refuse sharded axes on meshes whose axes are explicit.

    With `axis`, a number from 0 on, only that one is no longer sharded.

    On other meshes, where types say nothing of sharding, x itself: there XLA gathers what an operation needs whole.
    """
    sharding = jax.typeof(x).sharding
    spec = [None if axis in (None, i) else name for i, name in enumerate(sharding.spec)]
    if spec == list(sharding.spec):
        return x
    return jax.sharding.reshard(x, sharding.update(spec=jax.sharding.PartitionSpec(*spec)))
