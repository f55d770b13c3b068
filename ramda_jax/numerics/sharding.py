"""Shardings that are a part of an array's type, as on meshes with explicit axes."""

import jax


def with_type_sharding(x: jax.Array, sharding: jax.sharding.NamedSharding) -> jax.Array:
    """x with the `sharding` of another array's type; only meshes with explicit axes need this, elsewhere it is x."""
    return x if jax.typeof(x).sharding == sharding else jax.sharding.reshard(x, sharding)


def gathered(x: jax.Array, axis: int | None = None) -> jax.Array:
    """x with no axis sharded in its type: `reshape` and the SVD refuse sharded axes on meshes with explicit axes.

    With `axis`, an int >= 0, only that axis is gathered. On other meshes types do not have the sharding, and the result
    is x: XLA gathers what an operation needs.
    """
    sharding = jax.typeof(x).sharding
    spec = [None if axis in (None, i) else name for i, name in enumerate(sharding.spec)]
    if spec == list(sharding.spec):
        return x
    return jax.sharding.reshard(x, sharding.update(spec=jax.sharding.PartitionSpec(*spec)))
