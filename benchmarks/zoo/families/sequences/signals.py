"""Speech and signals: dilated and depthwise convolutions along time, and Fourier transforms."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import EQUINOX, FUNCTION, NNX, Entry, normal, over_batch, units

TITLE = "speech and signals"


class WaveNet(eqx.Module):
    """Gated dilated convolutions with a residual and a skip path."""

    first: eqx.nn.Conv1d
    filters: list
    gates: list
    residuals: list
    skips: list
    last: eqx.nn.Conv1d

    def __init__(self, stream, hidden, skip, key):
        keys = iter(jax.random.split(key, 10))
        self.first = eqx.nn.Conv1d(2, stream, 1, key=next(keys))
        dilated = [
            [eqx.nn.Conv1d(stream, hidden, 2, dilation=d, padding=((d, 0),), key=next(keys)) for d in (1, 2)]
            for _ in range(2)
        ]
        self.filters, self.gates = dilated
        self.residuals = [eqx.nn.Conv1d(hidden, stream, 1, key=next(keys))]
        self.skips = [eqx.nn.Conv1d(hidden, skip, 1, key=next(keys)) for _ in range(2)]
        self.last = eqx.nn.Conv1d(skip, 2, 1, key=next(keys))

    def __call__(self, x):
        x, skip = self.first(x), 0.0
        for number in range(2):
            h = jnp.tanh(self.filters[number](x)) * jax.nn.sigmoid(self.gates[number](x))
            skip = skip + self.skips[number](h)
            x = x + self.residuals[number](h) if number == 0 else x
        return self.last(jax.nn.relu(skip))


class Conformer(nnx.Module):
    """Half a feedforward, attention, a gated depthwise convolution with batch norm, and half a feedforward."""

    def __init__(self, heads, hidden, inner, rngs):
        self.first = nnx.Linear(3, 6, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(6, rngs=rngs) for _ in range(4)])
        self.ups = nnx.List([nnx.Linear(6, hidden, rngs=rngs) for _ in range(2)])
        self.downs = nnx.List([nnx.Linear(hidden, 6, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(heads, 6, 2 * heads, decode=False, rngs=rngs)
        self.gated = nnx.Conv(6, 2 * inner, (1,), rngs=rngs)
        self.depthwise = nnx.Conv(inner, inner, (3,), feature_group_count=inner, rngs=rngs)
        self.batch_norm, self.pointwise = nnx.BatchNorm(inner, rngs=rngs), nnx.Conv(inner, 6, (1,), rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        x = x + 0.5 * self.downs[0](nnx.silu(self.ups[0](self.norms[0](x))))
        x = x + self.attention(self.norms[1](x))
        y = nnx.glu(self.gated(self.norms[2](x)))
        x = x + self.pointwise(nnx.silu(self.batch_norm(self.depthwise(y))))
        return x + 0.5 * self.downs[1](nnx.silu(self.ups[1](self.norms[3](x))))


def attention(path):
    """The heads, and the entries of the values, of linen's attention with 5 heads of 5, as the output reads them."""
    return units(5, (f"params/{path}/out/kernel", 0)), units(5, (f"params/{path}/out/kernel", 1))


class UNet1D(eqx.Module):
    down1: eqx.nn.Conv1d
    down2: eqx.nn.Conv1d
    up: eqx.nn.ConvTranspose1d
    out: eqx.nn.Conv1d

    def __init__(self, one, two, up, key):
        keys = jax.random.split(key, 4)
        self.down1 = eqx.nn.Conv1d(2, one, 3, padding=1, key=keys[0])
        self.down2 = eqx.nn.Conv1d(one, two, 3, stride=2, padding=1, key=keys[1])
        self.up = eqx.nn.ConvTranspose1d(two, up, 2, stride=2, key=keys[2])
        self.out = eqx.nn.Conv1d(one + up, 2, 1, key=keys[3])

    def __call__(self, x):
        a = jax.nn.gelu(self.down1(x))
        b = jax.nn.gelu(self.down2(a))
        return self.out(jnp.concatenate([a, jax.nn.gelu(self.up(b))]))


def fourier_operator(params, x):
    """A Fourier neural operator: products of the low frequencies with complex matrices, and a skip connection."""
    x = x @ params["lift"]
    for layer in params["layers"]:
        modes = layer["real"].shape[0]
        low = jnp.fft.rfft(x, axis=1)[:, :modes]
        low = jnp.einsum("bkc,kcd->bkd", low, layer["real"] + 1j * layer["imaginary"])
        x = jax.nn.gelu(jnp.fft.irfft(low, n=x.shape[1], axis=1) + x @ layer["skip"])
    return x @ params["project"]


def operator_shapes(widths):
    layers = [{"real": (3, m, n), "imaginary": (3, m, n), "skip": (m, n)} for m, n in itertools.pairwise(widths)]
    return {"lift": (2, widths[0]), "layers": layers, "project": (widths[-1], 1)}


ENTRIES = {
    "WaveNet": Entry(
        EQUINOX, WaveNet, {"stream": 5, "hidden": 5, "skip": 10}, {"stream": 3, "hidden": 3, "skip": 6},
        (
            units(5, *((f"{kind}/{i}/weight", 1) for kind in ("filters", "gates") for i in range(2))),
            units(5, ("residuals/0/weight", 1), ("skips/0/weight", 1)),
            units(5, ("skips/1/weight", 1)),
            units(10, ("last/weight", 1)),
        ),
        normal(2, 8), call=over_batch,
    ),
    "Conformer": Entry(
        NNX, Conformer, {"heads": 5, "hidden": 10, "inner": 5}, {"heads": 3, "hidden": 6, "inner": 3},
        (
            units(5, ("attention/out/kernel", 0)),
            units(5, ("pointwise/kernel", 1)),
            *(units(10, (f"downs/{i}/kernel", 0)) for i in range(2)),
        ),
        normal(5, 3),
    ),
    "U-Net in one dimension": Entry(
        EQUINOX, UNet1D, {"one": 5, "two": 10, "up": 5}, {"one": 3, "two": 6, "up": 3},
        (
            units(5, ("down2/weight", 1), ("out/weight", 1, 1, 0, 5)),
            units(10, ("up/weight", 1)),
            units(5, ("out/weight", 1, 1, 5)),
        ),
        normal(2, 8), call=over_batch,
    ),
    "Fourier operator": Entry(
        FUNCTION, operator_shapes, {"widths": (5, 5, 10)}, {"widths": (3, 3, 6)},
        (
            *(
                units(5, *((f"layers/{i}/{name}", axis) for name, axis in (("real", 1), ("imaginary", 1), ("skip", 0))))
                for i in range(2)
            ),
            units(10, ("project", 0)),
        ),
        normal(8, 2), apply=fourier_operator,
    ),
}  # fmt: skip
