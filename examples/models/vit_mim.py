"""A vision transformer that fills in masked patches (SimMIM), like Hugging Face's `ViTForMaskedImageModeling`."""

import jax
import jax.numpy as jnp
from flax import nnx

# PyTorch truncates its normal at -2 and 2, a hundred standard deviations away, so this is a plain normal.
_normal = nnx.initializers.normal(0.02)


def _linear(inputs, outputs, *, rngs, dtype):
    return nnx.Linear(inputs, outputs, kernel_init=_normal, dtype=dtype, rngs=rngs)


class Block(nnx.Module):
    """A pre-norm transformer block whose query, key and value are three separate matrices."""

    def __init__(self, features, heads, hidden, *, rngs, dtype):
        self.heads = heads
        self.norm1 = nnx.LayerNorm(features, epsilon=1e-12, dtype=dtype, rngs=rngs)
        self.norm2 = nnx.LayerNorm(features, epsilon=1e-12, dtype=dtype, rngs=rngs)
        self.query, self.key, self.value, self.out = (
            _linear(features, features, rngs=rngs, dtype=dtype) for _ in range(4)
        )
        self.fc1 = _linear(features, hidden, rngs=rngs, dtype=dtype)
        self.fc2 = _linear(hidden, features, rngs=rngs, dtype=dtype)

    def __call__(self, x):
        batch, length, features = x.shape

        def split(y):
            return y.reshape(batch, length, self.heads, features // self.heads)

        y = self.norm1(x)
        attended = jax.nn.dot_product_attention(split(self.query(y)), split(self.key(y)), split(self.value(y)))
        x = x + self.out(attended.reshape(x.shape))
        return x + self.fc2(nnx.gelu(self.fc1(self.norm2(x)), approximate=False))


class ViTMIM(nnx.Module):
    """Patches of 16 x 16, 192 features, 4 blocks with 4 heads, and back to pixels, with 2,113,920 parameters."""

    def __init__(
        self, features=192, layers=4, heads=4, hidden=768, image_size=224, patch=16, *, rngs, dtype=jnp.float32
    ):
        self.patch = patch
        self.grid = image_size // patch
        self.patches = nnx.Conv(
            3, features, (patch, patch), patch, padding="VALID", kernel_init=_normal, dtype=dtype, rngs=rngs
        )
        self.cls_token = nnx.Param(_normal(rngs.params(), (1, 1, features)))
        self.mask_token = nnx.Param(jnp.zeros((1, 1, features)))
        self.position_embedding = nnx.Param(_normal(rngs.params(), (1, self.grid**2 + 1, features)))
        self.layers = nnx.List(Block(features, heads, hidden, rngs=rngs, dtype=dtype) for _ in range(layers))
        self.norm = nnx.LayerNorm(features, epsilon=1e-12, dtype=dtype, rngs=rngs)
        self.decoder = nnx.Conv(features, 3 * patch**2, (1, 1), kernel_init=_normal, dtype=dtype, rngs=rngs)

    def __call__(self, images, masked, *, rngs=None):
        """Fills in `images` `[batch, side, side, 3]` where `masked` `[batch, grid, grid]` is True."""
        batch = len(images)
        x = self.patches(images)
        x = jnp.where(masked[..., None], self.mask_token[...].reshape(-1).astype(x.dtype), x)
        x = x.reshape(batch, self.grid**2, -1)
        cls = jnp.broadcast_to(self.cls_token[...].astype(x.dtype), (batch, 1, x.shape[-1]))
        x = jnp.concatenate([cls, x], axis=1) + self.position_embedding[...].astype(x.dtype)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)[:, 1:].reshape(batch, self.grid, self.grid, -1)
        x = self.decoder(x).reshape(batch, self.grid, self.grid, 3, self.patch, self.patch)
        # As in PyTorch's PixelShuffle, the output (colour, row, column) of a patch becomes its pixels.
        x = x.transpose(0, 1, 4, 2, 5, 3)
        return x.reshape(batch, self.grid * self.patch, self.grid * self.patch, 3)
