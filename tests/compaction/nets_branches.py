"""Nets whose residual branches add only a bias, as at the start of training, because their last kernels are zero."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

IMAGES = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))


class Attention(nnx.Module):
    """Handwritten attention that stores the number and the size of its heads."""

    def __init__(self, rngs):
        self.heads, self.size = 4, 2
        self.qkv = nnx.List([nnx.Linear(6, 8, rngs=rngs) for _ in range(3)])
        self.out = nnx.Linear(8, 6, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x):
        q, k, v = (layer(x).reshape(*x.shape[:2], self.heads, self.size) for layer in self.qkv)
        weights = nnx.softmax(jnp.einsum("btnh,bsnh->bnts", q, k) / self.size**0.5)
        return self.out(jnp.einsum("bnts,bsnh->btnh", weights, v).reshape(*x.shape[:2], -1))


class Nnx(nnx.Module):
    """A basic block of a ResNet, then attention and a feedforward layer, both after a norm."""

    def __init__(self, rngs):
        zeros = nnx.initializers.zeros
        self.stem = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.convs = nnx.List(
            [
                nnx.Conv(6, 8, (3, 3), use_bias=False, rngs=rngs),
                nnx.Conv(8, 6, (3, 3), use_bias=False, kernel_init=zeros, rngs=rngs),
            ]
        )
        self.batch_norms = nnx.List([nnx.BatchNorm(8, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)])
        self.norms = nnx.List([nnx.LayerNorm(6, rngs=rngs), nnx.LayerNorm(6, rngs=rngs)])
        self.attention = Attention(rngs)
        self.up = nnx.Linear(6, 8, rngs=rngs)
        self.down = nnx.Linear(8, 6, kernel_init=zeros, bias_init=nnx.initializers.ones, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        y = nnx.relu(self.batch_norms[0](self.convs[0](x)))
        x = nnx.relu(x + self.batch_norms[1](self.convs[1](y))).reshape(len(x), 16, 6)
        x = x + self.attention(self.norms[0](x))
        x = x + self.down(nnx.gelu(self.up(self.norms[1](x))))
        return self.head(x.mean(axis=1))


class Linen(nn.Module):
    """The same net in linen, with Flax's attention."""

    @nn.compact
    def __call__(self, x):
        zeros = nn.initializers.zeros
        x = nn.Conv(6, (3, 3))(x)
        y = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3), use_bias=False)(x)))
        y = nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3), use_bias=False, kernel_init=zeros)(y))
        x = nn.relu(x + y).reshape(len(x), 16, 6)
        x = x + nn.MultiHeadDotProductAttention(4, qkv_features=8, out_features=6, out_kernel_init=zeros)(
            nn.LayerNorm()(x)
        )
        x = x + nn.Dense(6, kernel_init=zeros, bias_init=nn.initializers.ones)(nn.gelu(nn.Dense(8)(nn.LayerNorm()(x))))
        return nn.Dense(3)(x.mean(axis=1))


class Equinox(eqx.Module):
    """The same net in Equinox for one image, without batch norm. Attention keeps a head with empty values."""

    convs: list[eqx.nn.Conv2d]
    norms: list[eqx.nn.LayerNorm]
    attention: eqx.nn.MultiheadAttention
    linears: list[eqx.nn.Linear]

    def __init__(self, key):
        keys = iter(jax.random.split(key, 7))
        sizes = (3, 6), (6, 8), (8, 6)
        self.convs = [eqx.nn.Conv2d(m, n, 3, padding=1, key=next(keys)) for m, n in sizes]
        self.norms = [eqx.nn.LayerNorm(6), eqx.nn.LayerNorm(6)]
        self.attention = eqx.nn.MultiheadAttention(4, 6, qk_size=2, vo_size=2, key=next(keys))
        self.linears = [eqx.nn.Linear(m, n, key=next(keys)) for m, n in ((6, 8), (8, 6), (6, 3))]
        for holder in (self.convs[-1], self.attention.output_proj, self.linears[1]):
            object.__setattr__(holder, "weight", jnp.zeros_like(holder.weight))

    def __call__(self, image):
        x = self.convs[0](jnp.moveaxis(image, -1, 0))
        x = jax.nn.relu(x + self.convs[2](jax.nn.relu(self.convs[1](x)))).reshape(6, 16).T
        y = jax.vmap(self.norms[0])(x)
        x = x + self.attention(y, y, y)
        up, down, head = self.linears
        x = x + jax.vmap(lambda x: down(jax.nn.gelu(up(self.norms[1](x)))))(x)
        return head(x.mean(axis=0))


def function(params, x):
    """The same net as a function of matrix products, without convolutions."""
    x = x.reshape(len(x), 16, 3) @ params["stem"]
    q, k, v = (jnp.einsum("btd,dnh->btnh", norm(x), params[name]) for name in "qkv")
    weights = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q, k) * 0.3)
    x = x + jnp.einsum("btnh,nhd->btd", jnp.einsum("bnts,bsnh->btnh", weights, v), params["o"])
    x = x + jax.nn.gelu(norm(x) @ params["up"]) @ params["down"]
    return x.mean(axis=1) @ params["head"]


def norm(x):
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)


SHAPES = {"stem": (3, 6), "q": (6, 4, 2), "k": (6, 4, 2), "v": (6, 4, 2), "o": (4, 2, 6), "up": (6, 8)}
SHAPES |= {"down": (8, 6), "head": (6, 3)}
