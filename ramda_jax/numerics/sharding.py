"""Shardings that are a part of an array's type, as on meshes whose axes are explicit."""

import jax


def with_type_sharding(x: jax.Array, sharding: jax.sharding.NamedSharding) -> jax.Array:
    """x in `sharding`, that of another array's type; of use on meshes whose axes are explicit, elsewhere x itself."""
    return x if jax.typeof(x).sharding == sharding else jax.sharding.reshard(x, sharding)


def gathered(x: jax.Array) -> jax.Array:
    """x with no axis sharded in its type: `reshape` and the SVD refuse sharded axes on meshes whose axes are explicit.

    On other meshes, where types say nothing of sharding, x itself: there XLA gathers what an operation needs whole.
    """
    sharding = jax.typeof(x).sharding
    if all(axis is None for axis in sharding.spec):
        return x
    return jax.sharding.reshard(x, sharding.update(spec=jax.sharding.PartitionSpec(*[None] * x.ndim)))
