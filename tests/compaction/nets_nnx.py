"""The architectures for the tests of equality in nnx, with small widths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ramda_jax.structure.paths import path_name
from tests.tiny import array


class MLP(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(m, n, rngs=rngs) for m, n in ((6, 10), (10, 12), (12, 8), (8, 3))])

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


class LeNet5(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 6, (5, 5), rngs=rngs)
        self.conv2 = nnx.Conv(6, 8, (5, 5), padding="VALID", rngs=rngs)
        self.dense1 = nnx.Linear(2 * 2 * 8, 12, rngs=rngs)
        self.dense2 = nnx.Linear(12, 8, rngs=rngs)
        self.dense3 = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.tanh(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.avg_pool(nnx.tanh(self.conv2(x)), (2, 2), (2, 2), padding="VALID")
        x = nnx.tanh(self.dense1(x.reshape(len(x), -1)))
        return self.dense3(nnx.tanh(self.dense2(x)))


class VGG19(nnx.Module):
    """A net with 16 convolutions with batch normalisation, and 3 dense layers."""

    def __init__(self, rngs, widths=(4, 6, 8, 10, 10), depths=(2, 2, 4, 4, 4)):
        self.convs, self.norms, self.pools = nnx.List(), nnx.List(), []
        channels = 3
        for width, depth in zip(widths, depths, strict=True):
            for _ in range(depth):
                self.convs.append(nnx.Conv(channels, width, (3, 3), use_bias=False, rngs=rngs))
                self.norms.append(nnx.BatchNorm(width, rngs=rngs))
                channels = width
            self.pools.append(len(self.convs))
        self.pools = tuple(self.pools)
        self.dense = nnx.List([nnx.Linear(m, n, rngs=rngs) for m, n in ((channels, 12), (12, 12), (12, 5))])

    def __call__(self, x):
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True), 1):
            x = nnx.relu(norm(conv(x)))
            if number in self.pools and x.shape[1] > 1:
                x = nnx.max_pool(x, (2, 2), (2, 2))
        x = x.mean(axis=(1, 2))
        for layer in self.dense[:-1]:
            x = nnx.relu(layer(x))
        return self.dense[-1](x)


class Bottleneck(nnx.Module):
    def __init__(self, channels, width, stride, rngs):
        self.conv1 = nnx.Conv(channels, width, (1, 1), use_bias=False, rngs=rngs)
        self.conv2 = nnx.Conv(width, width, (3, 3), strides=stride, use_bias=False, rngs=rngs)
        self.conv3 = nnx.Conv(width, 4 * width, (1, 1), use_bias=False, rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(n, rngs=rngs) for n in (width, width, 4 * width)])
        self.shortcut = nnx.List()
        if stride > 1 or channels != 4 * width:
            self.shortcut.append(nnx.Conv(channels, 4 * width, (1, 1), strides=stride, use_bias=False, rngs=rngs))
            self.shortcut.append(nnx.BatchNorm(4 * width, rngs=rngs))

    def __call__(self, x):
        y = nnx.relu(self.norms[0](self.conv1(x)))
        y = nnx.relu(self.norms[1](self.conv2(y)))
        y = self.norms[2](self.conv3(y))
        for layer in self.shortcut:
            x = layer(x)
        return nnx.relu(x + y)


class ResNet50(nnx.Module):
    def __init__(self, rngs, width=2, depths=(3, 4, 6, 3)):
        self.conv = nnx.Conv(3, 4, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.blocks = nnx.List()
        channels = 4
        for stage, depth in enumerate(depths):
            for number in range(depth):
                stride = 2 if stage and not number else 1
                self.blocks.append(Bottleneck(channels, width * 2**stage, stride, rngs))
                channels = 4 * width * 2**stage
        self.dense = nnx.Linear(channels, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean(axis=(1, 2)))


class MobileNet(nnx.Module):
    """A net with depthwise and pointwise convolutions. One depthwise layer has two outputs for each input."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs)
        self.depthwise = nnx.Conv(6, 6, (3, 3), feature_group_count=6, rngs=rngs)
        self.pointwise = nnx.Conv(6, 8, (1, 1), rngs=rngs)
        self.doubled = nnx.Conv(8, 16, (3, 3), feature_group_count=8, kernel_dilation=2, rngs=rngs)
        self.last = nnx.Conv(16, 8, (1, 1), rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(n, rngs=rngs) for n in (6, 6, 8, 16, 8)])
        self.dense = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        layers = (self.conv, self.depthwise, self.pointwise, self.doubled, self.last)
        for layer, norm in zip(layers, self.norms, strict=True):
            x = jax.nn.relu6(norm(layer(x)))
        return self.dense(x.mean(axis=(1, 2)))


class DenseNet(nnx.Module):
    """A net in which every layer reads all layers before it."""

    def __init__(self, rngs):
        self.first = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        widths = (6, 10, 14)
        self.norms = nnx.List([nnx.BatchNorm(n, rngs=rngs) for n in widths])
        self.convs = nnx.List([nnx.Conv(n, 4, (3, 3), rngs=rngs) for n in widths])
        self.transition = nnx.Conv(18, 8, (1, 1), rngs=rngs)
        self.dense = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = jnp.concatenate([x, conv(nnx.relu(norm(x)))], axis=-1)
        x = nnx.avg_pool(nnx.relu(self.transition(x)), (2, 2), (2, 2))
        return self.dense(x.mean(axis=(1, 2)))


class UNet(nnx.Module):
    def __init__(self, rngs):
        self.down1 = nnx.Conv(1, 6, (3, 3), rngs=rngs)
        self.down2 = nnx.Conv(6, 8, (3, 3), rngs=rngs)
        self.middle = nnx.Conv(8, 10, (3, 3), rngs=rngs)
        self.up1 = nnx.ConvTranspose(10, 8, (2, 2), strides=(2, 2), rngs=rngs)
        self.conv1 = nnx.Conv(16, 8, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(14, 6, (3, 3), rngs=rngs)
        self.out = nnx.Conv(6, 2, (1, 1), rngs=rngs)

    def __call__(self, x):
        a = nnx.relu(self.down1(x))
        b = nnx.relu(self.down2(nnx.max_pool(a, (2, 2), (2, 2))))
        c = nnx.relu(self.middle(nnx.max_pool(b, (2, 2), (2, 2))))
        y = nnx.relu(self.conv1(jnp.concatenate([self.up1(c), b], axis=-1)))
        y = jax.image.resize(y, (*y.shape[:1], *x.shape[1:3], y.shape[-1]), "nearest")
        return self.out(nnx.relu(self.conv2(jnp.concatenate([y, a], axis=-1))))


class Block(nnx.Module):
    def __init__(self, rngs, features=8, heads=4, hidden=16):
        self.norm1, self.norm2 = nnx.LayerNorm(features, rngs=rngs), nnx.LayerNorm(features, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, features, 3 * heads, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(features, hidden, rngs=rngs), nnx.Linear(hidden, features, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x), mask=nnx.make_causal_mask(x[..., 0]))
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class Transformer(nnx.Module):
    """A transformer with the norm before each branch, and learned positions."""

    def __init__(self, rngs):
        self.tokens, self.positions = nnx.Embed(11, 8, rngs=rngs), nnx.Embed(7, 8, rngs=rngs)
        self.blocks = nnx.List([Block(rngs), Block(rngs)])
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 11, rngs=rngs)

    def __call__(self, tokens):
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class LSTM(nnx.Module):
    def __init__(self, rngs):
        self.rnn1 = nnx.RNN(nnx.OptimizedLSTMCell(5, 8, rngs=rngs))
        self.rnn2 = nnx.RNN(nnx.LSTMCell(8, 6, rngs=rngs))
        self.dense = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.rnn2(self.rnn1(x))[:, -1])


class Normalised(nnx.Module):
    """A net with LayerNorm in the stream, and free widths between the norms."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(m, n, rngs=rngs) for m, n in ((6, 8), (8, 12), (12, 8), (8, 3))])
        self.norms = nnx.List([nnx.LayerNorm(8, rngs=rngs), nnx.RMSNorm(8, rngs=rngs)])

    def __call__(self, x):
        x = self.norms[0](self.layers[0](x))
        x = x + self.layers[2](nnx.silu(self.layers[1](x)))
        return self.layers[3](self.norms[1](x))


class GroupNormed(nnx.Module):
    """A net with GroupNorm after the first convolution and none after the second."""

    def __init__(self, rngs):
        self.conv1, self.norm = nnx.Conv(3, 8, (3, 3), rngs=rngs), nnx.GroupNorm(8, num_groups=4, rngs=rngs)
        self.conv2, self.conv3 = nnx.Conv(8, 8, (3, 3), rngs=rngs), nnx.Conv(8, 6, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv1(x)))
        x = nnx.relu(self.conv3(nnx.relu(self.conv2(x))))
        return self.dense(x.mean(axis=(1, 2)))


class Tied(nnx.Module):
    """A net whose embedding is also the output's matrix."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(9, 8, rngs=rngs)
        self.up, self.down = nnx.Linear(8, 12, rngs=rngs), nnx.Linear(12, 8, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.embed.attend(x + self.down(nnx.relu(self.up(x))))


def images(size, channels):
    return jax.random.normal(jax.random.key(0), (2, size, size, channels))


TOKENS = jax.random.randint(jax.random.key(0), (2, 7), 0, 9)
VECTORS = jax.random.normal(jax.random.key(0), (4, 6))
SEQUENCES = jax.random.normal(jax.random.key(0), (2, 4, 5))

#: Maps names to (class, batch, widths that must be able to shrink, each named by one of its axes).
NETS = {
    "mlp": (MLP, VECTORS, ["layers/0/kernel[1]", "layers/1/kernel[1]", "layers/2/kernel[1]"]),
    "lenet5": (LeNet5, images(16, 1), ["conv1/kernel[3]", "conv2/kernel[3]", "dense1/kernel[1]", "dense2/kernel[1]"]),
    "vgg19": (VGG19, images(8, 3), [f"convs/{i}/kernel[3]" for i in range(16)] + ["dense/1/kernel[0]"]),
    "resnet50": (ResNet50, images(8, 3), [f"blocks/{i}/conv{j}/kernel[3]" for i in range(16) for j in (1, 2)]),
    "vgg": (functools.partial(VGG19, depths=(1,) * 5), images(8, 3), [f"convs/{i}/kernel[3]" for i in range(5)]),
    "resnet": (
        functools.partial(ResNet50, depths=(2, 1)),
        images(8, 3),
        [f"blocks/{i}/conv{j}/kernel[3]" for i in range(3) for j in (1, 2)],
    ),
    "mobilenet": (MobileNet, images(8, 3), ["conv/kernel[3]", "pointwise/kernel[3]", "last/kernel[3]"]),
    "densenet": (DenseNet, images(8, 3), ["first/kernel[3]", "convs/0/kernel[3]", "transition/kernel[3]"]),
    "unet": (UNet, images(8, 1), ["down1/kernel[3]", "middle/kernel[3]", "up1/kernel[3]", "conv1/kernel[3]"]),
    "transformer": (Transformer, TOKENS, ["blocks/0/attention/query/kernel[1]", "blocks/1/up/kernel[1]"]),
    "lstm": (LSTM, SEQUENCES, ["rnn1/cell/dense_h/kernel[1]", "rnn2/cell/hf/kernel[1]"]),
    "layer_norm": (Normalised, VECTORS, ["layers/1/kernel[1]"]),
    "group_norm": (GroupNormed, images(6, 3), ["conv1/kernel[3]", "conv2/kernel[3]", "conv3/kernel[3]"]),
    "tied": (Tied, TOKENS, ["up/kernel[1]", "embed/embedding[1]"]),
}


#: Nets that take long to compile. Each of their kinds of layers is in a smaller net too.
FULL_DEPTH = ("vgg19", "resnet50")
every_net = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in FULL_DEPTH else ()) for name in NETS]
)


def make(name, dtype=jnp.float32):
    """(net, batch); `build` makes the net."""
    kind, batch, _ = NETS[name]
    return build(kind, dtype), batch.astype(dtype) if jnp.issubdtype(batch.dtype, jnp.floating) else batch


def build(kind, dtype=jnp.float32):
    """A net with random kernels, biases and statistics, so that the output of a dead channel is not zero."""
    graph, state = nnx.split(nnx.eval_shape(lambda: kind(rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(1)

    # Use NumPy, because JAX would compile a random number generator for each shape.
    def fill(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            return jax.random.split(jax.random.key(0), leaf.shape) if is_key else jnp.zeros(leaf.shape, leaf.dtype)
        if "var" in path_name(path).split("/"):
            return array(rng.uniform(0.5, 2.0, leaf.shape), dtype)
        if leaf.ndim == 1:
            return array(rng.normal(0.5, 0.3, leaf.shape), dtype)
        return array(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])), dtype)

    net = nnx.merge(graph, jax.tree_util.tree_map_with_path(fill, state))
    net.eval()
    for _, layer in nnx.iter_modules(net):
        # A recurrent cell makes its first carry in this dtype.
        if hasattr(layer, "param_dtype"):
            layer.param_dtype = dtype
    return net
