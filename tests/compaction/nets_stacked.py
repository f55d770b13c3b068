"""Stacks of layers: their arrays have extra leading axes, and `scan`, `vmap` or a loop runs the layers."""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


def stack(kind, *lengths, axis=0):
    """A function that makes a stack of modules of a kind; with several lengths, a stack of stacks."""

    def make(rngs, lengths=lengths):
        if not lengths:
            return kind(rngs)

        @nnx.split_rngs(splits=lengths[0])
        @nnx.vmap(in_axes=(0,), out_axes=nnx.StateAxes({nnx.RngState: 0, ...: axis}))
        def made(rngs):
            return make(rngs, lengths[1:])

        return made(rngs)

    return make


@nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
def in_turn(x, layer):
    return layer(x)


def every(layers, x):
    """The output of each layer of a stack for the input `x`."""
    return nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(layers, x)


class Feedforward(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.RMSNorm(6, rngs=rngs)
        self.up, self.down = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 6, rngs=rngs)

    def __call__(self, x):
        return x + self.down(nnx.silu(self.up(self.norm(x))))


class Gated(nnx.Module):
    """A feedforward layer with gate and value from one kernel."""

    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.up, self.down = nnx.Linear(6, 16, rngs=rngs), nnx.Linear(8, 6, rngs=rngs)

    def __call__(self, x):
        gate, value = jnp.split(self.up(self.norm(x)), 2, axis=-1)
        return x + self.down(nnx.silu(gate) * value)


class Attending(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 6, 8, decode=False, rngs=rngs)

    def __call__(self, x):
        return x + self.attention(self.norm(x), mask=nnx.make_causal_mask(x[..., 0]))


class Einsums(nnx.Module):
    """Attention with einsums as in Gemma."""

    def __init__(self, rngs):
        self.query = nnx.Einsum("btd,hds->bths", (4, 6, 2), rngs=rngs)
        self.heads = nnx.LinearGeneral(6, (4, 2), rngs=rngs)
        self.out = nnx.Einsum("bths,hsd->btd", (4, 2, 6), rngs=rngs)
        self.also = nnx.LinearGeneral((4, 2), 6, axis=(-2, -1), rngs=rngs)

    def __call__(self, x):
        return x + self.out(nnx.tanh(self.query(x))) + self.also(nnx.tanh(self.heads(x)))


class Convolving(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(6, 8, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.depthwise = nnx.Conv(8, 8, (3, 3), feature_group_count=8, rngs=rngs)
        self.last = nnx.Conv(8, 6, (1, 1), rngs=rngs)

    def __call__(self, x):
        return x + self.last(nnx.relu(self.depthwise(nnx.relu(self.norm(self.first(x))))))


class Recurrent(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(6, 8, rngs=rngs))
        self.out = nnx.Linear(8, 6, rngs=rngs)

    def __call__(self, x):
        return x + self.out(self.rnn(x))


class Scanned(nnx.Module):
    """A stack run by `nnx.scan` between dense layers, the first of which can shrink too."""

    def __init__(self, kind, *lengths, axis=0, rngs):
        self.a, self.b = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 6, rngs=rngs)
        self.layers = stack(kind, *lengths, axis=axis)(rngs)
        self.out = nnx.Linear(6, 3, rngs=rngs)
        self.depth, self.axis = len(lengths), axis

    def __call__(self, x):
        run = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, self.axis), out_axes=nnx.Carry)
        for _ in range(self.depth - 1):
            run = nnx.scan(run, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.out(run(self.b(nnx.relu(self.a(x))), self.layers))


class Looped(Scanned):
    """The same net with a Python loop over the layers."""

    def __call__(self, x):
        x = self.b(nnx.relu(self.a(x)))
        graph, state = nnx.split(self.layers)
        for number in range(3):
            x = nnx.merge(graph, jax.tree.map(lambda leaf, number=number: leaf[number], state))(x)
        return self.out(x)


class LaxScanned(Scanned):
    """The same net with `jax.lax.scan` over the state."""

    def __call__(self, x):
        graph, state = nnx.split(self.layers)
        x, _ = jax.lax.scan(lambda x, one: (nnx.merge(graph, one)(x), None), self.b(nnx.relu(self.a(x))), state)
        return self.out(x)


class Ensemble(nnx.Module):
    """The mean of several nets on the same inputs."""

    def __init__(self, kind, *lengths, rngs):
        self.a, self.b = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 6, rngs=rngs)
        self.nets = stack(kind, *lengths)(rngs)
        self.depth = len(lengths)

    def __call__(self, x):
        run = every
        for _ in range(self.depth - 1):
            run = nnx.vmap(run, in_axes=(0, None))
        return run(self.nets, self.b(nnx.relu(self.a(x)))).mean(axis=tuple(range(self.depth)))


class Experts(nnx.Module):
    """A mixture of experts: each token gets a weighted mean of the outputs of all experts."""

    def __init__(self, rngs):
        self.router = nnx.Linear(6, 3, rngs=rngs)
        self.experts = stack(Feedforward, 3)(rngs)
        self.a = nnx.Linear(3, 6, rngs=rngs)

    def __call__(self, x):
        x = self.a(x)
        weights = nnx.softmax(self.router(x))
        return jnp.einsum("btse,ebtsd->btsd" if x.ndim == 4 else "bte,ebtd->btd", weights, every(self.experts, x))


class Tables(nnx.Module):
    """A net with an embedding for each of several codebooks."""

    def __init__(self, rngs):
        self.tables = stack(lambda rngs: nnx.Embed(9, 6, rngs=rngs), 3)(rngs)
        self.layers = stack(Feedforward, 3)(rngs)

    def __call__(self, tokens):
        x = nnx.vmap(lambda table, tokens: table(tokens), in_axes=(0, None))(self.tables, tokens).sum(0)
        return in_turn(x, self.layers)


SEQUENCES = jax.random.normal(jax.random.key(0), (2, 4, 3))
IMAGES = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
TOKENS = jax.random.randint(jax.random.key(0), (2, 5), 0, 9)


def scanned(kind, *lengths, **settings):
    return functools.partial(Scanned, kind, *lengths, **settings)


#: Maps names to (function of rngs, batch, an axis that can shrink).
NNX = {
    "scan of feedforward": (scanned(Feedforward, 3), SEQUENCES, "layers/up/kernel[2]"),
    "scan over the second axis": (scanned(Feedforward, 3, axis=1), SEQUENCES, "layers/up/kernel[2]"),
    "scan of scans": (scanned(Feedforward, 2, 3), SEQUENCES, "layers/up/kernel[3]"),
    "scan of gated": (scanned(Gated, 3), SEQUENCES, "layers/down/kernel[1]"),
    "scan of attention": (scanned(Attending, 3), SEQUENCES, "layers/attention/query/kernel[2]"),
    "scan of einsums": (scanned(Einsums, 3), SEQUENCES, "layers/query/kernel[1]"),
    "scan of convolutions": (scanned(Convolving, 3), IMAGES, "layers/first/kernel[4]"),
    "scan of recurrent nets": (scanned(Recurrent, 3), SEQUENCES, "layers/out/kernel[1]"),
    "loop": (functools.partial(Looped, Feedforward, 3), SEQUENCES, "layers/up/kernel[2]"),
    "loop of attention": (functools.partial(Looped, Attending, 3), SEQUENCES, "layers/attention/query/kernel[2]"),
    "loop of convolutions": (functools.partial(Looped, Convolving, 3), IMAGES, "layers/first/kernel[4]"),
    "jax.lax.scan": (functools.partial(LaxScanned, Gated, 3), SEQUENCES, "layers/down/kernel[1]"),
    "vmap of feedforward": (functools.partial(Ensemble, Feedforward, 3), SEQUENCES, "nets/up/kernel[2]"),
    "vmap of vmaps": (functools.partial(Ensemble, Gated, 2, 3), SEQUENCES, "nets/down/kernel[2]"),
    "vmap of attention": (functools.partial(Ensemble, Attending, 3), SEQUENCES, "nets/attention/query/kernel[2]"),
    "vmap of convolutions": (functools.partial(Ensemble, Convolving, 3), IMAGES, "nets/first/kernel[4]"),
    "vmap of recurrent nets": (functools.partial(Ensemble, Recurrent, 3), SEQUENCES, "nets/out/kernel[1]"),
    "vmap of einsums": (functools.partial(Ensemble, Einsums, 3), SEQUENCES, "nets/query/kernel[1]"),
    "experts": (Experts, SEQUENCES, "experts/up/kernel[2]"),
    "tables": (Tables, TOKENS, "layers/up/kernel[2]"),
}


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=8)(y, mask=nn.make_causal_mask(y[..., 0]))
        return x + nn.Dense(6)(nn.silu(nn.Dense(8)(nn.RMSNorm()(x)))), None


class LinenConvolving(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        y = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3), use_bias=False)(x)))
        y = nn.relu(nn.Conv(8, (3, 3), feature_group_count=8)(y))
        return x + nn.Conv(6, (1, 1))(y), None


class LinenStack(nn.Module):
    """A stack of blocks. `axis` is the axis of the layers in their arrays."""

    block: type[nn.Module]
    axis: int = 0
    scan: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6)(nn.relu(nn.Dense(8)(x)))
        axes, split = {"params": self.axis, "batch_stats": self.axis}, {"params": True}
        if self.scan:
            x, _ = nn.scan(self.block, variable_axes=axes, split_rngs=split, length=3)()(x, None)
        else:
            model = nn.vmap(self.block, in_axes=None, axis_size=3, variable_axes=axes, split_rngs=split)
            x = model()(x)[0].mean(axis=0)
        return nn.Dense(3)(x)


#: Maps names to (module, batch, an axis that can shrink).
LINEN = {
    "scan": (LinenStack(LinenBlock), SEQUENCES, "params/ScanLinenBlock_0/Dense_1/kernel[2]"),
    "scan over the second axis": (LinenStack(LinenBlock, 1), SEQUENCES, "params/ScanLinenBlock_0/Dense_1/kernel[2]"),
    "vmap": (LinenStack(LinenBlock, scan=False), SEQUENCES, "params/VmapLinenBlock_0/Dense_1/kernel[2]"),
    "scan of convolutions": (LinenStack(LinenConvolving), IMAGES, "params/ScanLinenConvolving_0/Conv_0/kernel[4]"),
    "vmap of convolutions": (
        LinenStack(LinenConvolving, scan=False), IMAGES, "params/VmapLinenConvolving_0/Conv_0/kernel[4]"
    ),
}  # fmt: skip


class EquinoxStack(eqx.Module):
    """The hidden layers of an MLP as a stack, followed by an ensemble of attention heads."""

    first: eqx.nn.Linear
    layers: eqx.nn.MLP
    attention: eqx.nn.MultiheadAttention
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.first, self.last = eqx.nn.Linear(3, 6, key=keys[0]), eqx.nn.Linear(6, 3, key=keys[1])
        self.layers = eqx.filter_vmap(lambda key: eqx.nn.MLP(6, 6, 8, 1, key=key))(jax.random.split(keys[2], 3))
        make = eqx.filter_vmap(lambda key: eqx.nn.MultiheadAttention(2, 6, key=key))
        self.attention = make(jax.random.split(keys[3], 2))

    def __call__(self, x):
        x = jax.vmap(self.first)(x)
        arrays, static = eqx.partition(self.layers, eqx.is_array)
        x, _ = jax.lax.scan(lambda x, one: (x + jax.vmap(eqx.combine(one, static))(x), None), x, arrays)
        x = eqx.filter_vmap(lambda layer, x: layer(x, x, x), in_axes=(eqx.if_array(0), None))(self.attention, x).mean(0)
        return jax.vmap(self.last)(x)


EQUINOX = (EquinoxStack, SEQUENCES, "layers/layers/0/weight[1]")
