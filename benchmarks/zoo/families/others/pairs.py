"""Nets that compare two inputs, and nets of unordered sets of inputs."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import EQUINOX, LINEN, NNX, Entry, normal, over_batch, units

TITLE = "pairs and sets"


class PointNet(nn.Module):
    """The maximum of each feature over all points."""

    hidden: int
    features: int
    after: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(True)(nn.Dense(self.hidden)(x)))
        x = nn.relu(nn.BatchNorm(True)(nn.Dense(self.features)(x))).max(axis=1)
        x = nn.relu(nn.Dense(self.after)(x))
        return nn.Dense(3)(x)


class TwoTowers(nnx.Module):
    """Users and items each get a vector from a table and a net, and the score is the product of both vectors."""

    def __init__(self, table, hidden, shared, rngs):
        self.users, self.things = nnx.Embed(7, table, rngs=rngs), nnx.Embed(9, table, rngs=rngs)
        self.user1, self.user2 = nnx.Linear(table, hidden, rngs=rngs), nnx.Linear(hidden, shared, rngs=rngs)
        self.thing = nnx.Linear(table, shared, rngs=rngs)

    def __call__(self, users, things):
        user = self.user2(nnx.relu(self.user1(self.users(users))))
        return jnp.einsum("bd,bnd->bn", user, self.thing(self.things(things)))


def users_and_things(rng, batch):
    return jnp.asarray(rng.integers(0, 7, batch), jnp.int32), jnp.asarray(rng.integers(0, 9, (batch, 4)), jnp.int32)


class Siamese(nnx.Module):
    """One net on both images, and a layer on the distance of its outputs."""

    def __init__(self, channels, features, rngs):
        self.conv = nnx.Conv(1, channels, (3, 3), rngs=rngs)
        self.dense, self.judge = nnx.Linear(channels, features, rngs=rngs), nnx.Linear(features, 1, rngs=rngs)

    def embed(self, x):
        return self.dense(nnx.relu(self.conv(x)).mean(axis=(1, 2)))

    def __call__(self, one, two):
        return nnx.sigmoid(self.judge(jnp.abs(self.embed(one) - self.embed(two))))


class Contrastive(nn.Module):
    """CLIP: images and texts in one space, compared by cosine. An entry can be removed where both are zero."""

    channels: int
    hidden: int
    shared: int

    @nn.compact
    def __call__(self, images, texts):
        image = nn.Conv(self.channels, (2, 2), (2, 2), name="conv")(images).mean(axis=(1, 2))
        image = nn.Dense(self.shared, use_bias=False, name="image")(nn.gelu(image))
        text = nn.Dense(self.shared, use_bias=False, name="text")(nn.gelu(nn.Dense(self.hidden, name="words")(texts)))
        image, text = (one / jnp.sqrt((one**2).sum(-1, keepdims=True)) for one in (image, text))
        return image @ text.T


def two_images(rng, batch):
    return tuple(rng.normal(size=(batch, 4, 4, 1)) for _ in range(2))


def images_and_texts(rng, batch):
    return rng.normal(size=(batch, 4, 4, 2)), rng.normal(size=(batch, 5))


class DeepSets(eqx.Module):
    """A sum over the elements of a set between two nets."""

    each: list
    whole: list

    def __init__(self, hidden, summed, after, key):
        keys = jax.random.split(key, 4)
        self.each = [eqx.nn.Linear(3, hidden, key=keys[0]), eqx.nn.Linear(hidden, summed, key=keys[1])]
        self.whole = [eqx.nn.Linear(summed, after, key=keys[2]), eqx.nn.Linear(after, 2, key=keys[3])]

    def __call__(self, x):
        x = jax.vmap(lambda one: self.each[1](jax.nn.relu(self.each[0](one))))(x).sum(0)
        return self.whole[1](jax.nn.relu(self.whole[0](jax.nn.relu(x))))


ENTRIES = {
    "siamese net": Entry(
        NNX, Siamese, {"channels": 5, "features": 10}, {"channels": 3, "features": 6},
        (units(5, ("dense/kernel", 0)), units(10, ("judge/kernel", 0))),
        two_images,
    ),
    "images and texts in one space": Entry(
        LINEN, Contrastive, {"channels": 5, "hidden": 10, "shared": 5}, {"channels": 3, "hidden": 6, "shared": 3},
        (
            units(5, ("params/image/kernel", 0)),
            units(10, ("params/text/kernel", 0)),
            units(5, ("params/image/kernel", 1), ("params/text/kernel", 1)),
        ),
        images_and_texts, stays="reduce_sum in Contrastive runs over it",
    ),
    "recommender, two towers": Entry(
        # An entry of the score's sum can be removed where it is zero in one of the two towers.
        NNX, TwoTowers, {"table": 5, "hidden": 10, "shared": 5}, {"table": 3, "hidden": 6, "shared": 3},
        (
            units(5, ("user1/kernel", 0)),
            units(5, ("thing/kernel", 0)),
            units(10, ("user2/kernel", 0)),
            units(5, ("thing/kernel", 1), ("thing/bias", 0)),
        ),
        users_and_things,
    ),
    "deep sets": Entry(
        EQUINOX, DeepSets, {"hidden": 10, "summed": 10, "after": 5}, {"hidden": 6, "summed": 6, "after": 3},
        (units(10, ("each/1/weight", 1)), units(10, ("whole/0/weight", 1)), units(5, ("whole/1/weight", 1))),
        normal(4, 3), call=over_batch,
    ),
    "PointNet": Entry(
        LINEN, PointNet, {"hidden": 5, "features": 10, "after": 5}, {"hidden": 3, "features": 6, "after": 3},
        (
            units(5, ("params/Dense_1/kernel", 0)),
            units(10, ("params/Dense_2/kernel", 0)),
            units(5, ("params/Dense_3/kernel", 0)),
        ),
        normal(5, 3),
    ),
}  # fmt: skip
