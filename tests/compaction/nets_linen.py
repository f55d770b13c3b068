"""The nets for the tests of equality in linen, written as users would write them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax.structure.paths import path_name
from tests.tiny import array


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (10, 12):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(3)(x)


class LeNet5(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.avg_pool(nn.tanh(nn.Conv(6, (5, 5))(x)), (2, 2), (2, 2))
        x = nn.avg_pool(nn.tanh(nn.Conv(8, (5, 5), padding="VALID")(x)), (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        for width in (12, 8):
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(5)(x)


class Bottleneck(nn.Module):
    width: int
    stride: int

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        conv = functools.partial(nn.Conv, use_bias=False)
        y = nn.relu(norm()(conv(self.width, (1, 1))(x)))
        y = nn.relu(norm()(conv(self.width, (3, 3), strides=self.stride)(y)))
        y = norm()(conv(4 * self.width, (1, 1))(y))
        if x.shape != y.shape:
            x = norm(name="shortcut_norm")(conv(4 * self.width, (1, 1), strides=self.stride, name="shortcut")(x))
        return nn.relu(x + y)


class ResNet50(nn.Module):
    width: int = 2
    depths: tuple[int, ...] = (3, 4, 6, 3)

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3), use_bias=False)(x)))
        for stage, depth in enumerate(self.depths):
            for number in range(depth):
                x = Bottleneck(self.width * 2**stage, 2 if stage and not number else 1)(x)
        return nn.Dense(5)(x.mean(axis=(1, 2)))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 8)(tokens) + nn.Embed(7, 8)(jnp.arange(tokens.shape[1]))
        for _ in range(2):
            y = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=12)(y, mask=nn.make_causal_mask(tokens))
            x = x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return nn.Dense(11)(nn.LayerNorm()(x))


class MobileNet(nn.Module):
    """A net with depthwise convolutions, with one and with two outputs for each input."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), strides=2)(x))
        x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=6)(x))
        x = nn.relu(nn.Conv(8, (1, 1))(x))
        x = nn.relu(nn.Conv(16, (3, 3), feature_group_count=8)(x))
        return nn.Dense(4)(x.mean(axis=(1, 2)))


def images(size, channels):
    return jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)


#: Maps names to (module, batch).
NETS = {
    "resnet": (ResNet50(depths=(2, 1)), images(8, 3)),
    "mlp": (MLP(), jax.ShapeDtypeStruct((4, 6), jnp.float32)),
    "lenet5": (LeNet5(), images(16, 1)),
    "resnet50": (ResNet50(), images(8, 3)),
    "transformer": (Transformer(), jax.ShapeDtypeStruct((2, 7), jnp.int32)),
    "mobilenet": (MobileNet(), images(8, 3)),
}


every_net = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "resnet50" else ()) for name in NETS]
)


def make(name, dtype=jnp.float32):
    """(module, variables with random biases and statistics, batch)."""
    module, batch = NETS[name]
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        if path_name(path).endswith("var"):
            return array(rng.uniform(0.5, 2.0, leaf.shape), dtype)
        if leaf.ndim == 1:
            return array(rng.normal(0.5, 0.3, leaf.shape), dtype)
        return array(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])), dtype)

    shapes = jax.eval_shape(module.init, jax.random.key(0), batch)
    variables = jax.tree_util.tree_map_with_path(fill, shapes)
    if batch.dtype == jnp.int32:
        return module, variables, array(rng.integers(0, 11, batch.shape), jnp.int32)
    return module, variables, array(rng.normal(size=batch.shape), dtype)
