"""Parameter trees for measurements, with gradients of real training steps if there is a model, else generated."""

import functools
import itertools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits, load_sample_images

from examples.digits import ConvNet
from examples.models import MLP, ResNet50, TransformerXL

GRADIENTS = 4


class Tree(NamedTuple):
    """Parameters and gradients of their structure.

    Attributes:
        params: a pytree.
        gradients: a list of pytrees like it, of successive batches.
        origin: where the gradients come from, a phrase.
    """

    params: Any
    gradients: list
    origin: str

    @property
    def size(self):
        """The root mean square of a matrix's gradients, the median over the leaves of two axes or more."""
        matrices = [leaf for leaf in jax.tree.leaves(self.gradients) if leaf.ndim > 1]
        return float(np.median([np.sqrt(np.mean(np.square(np.asarray(leaf, np.float32)))) for leaf in matrices]))

    def astype(self, dtype):
        """The same in another dtype."""
        convert = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))
        return Tree(convert(self.params), [convert(gradient) for gradient in self.gradients], self.origin)


def number_of_parameters(params):
    """The number of entries of all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def recorded(model, loss, batches, origin, part=lambda params: params):
    """The `Tree` of a model and its gradients in the first steps of a training by AdamW, clipped to norm 1.

    Args:
        model: an `nnx.Module`.
        loss: a function from (model, *batch) to a number.
        batches: tuples of arrays, one for each gradient.
        origin: the tree's origin.
        part: a function from all parameters to those that are kept.
    """
    graph, params, others = nnx.split(model, nnx.Param, ...)
    clip, optimizer = optax.clip_by_global_norm(1.0), optax.adamw(1e-3)

    @jax.jit
    def step(params, state, others, *batch):
        gradient = jax.grad(lambda params: loss(nnx.merge(graph, params, others, copy=True), *batch))(params)
        gradient, _ = clip.update(gradient, clip.init(params))
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, gradient

    first, state, gradients = params, optimizer.init(params), []
    for batch in batches:
        params, state, gradient = step(params, state, others, *batch)
        gradients.append(part(nnx.to_pure_dict(gradient)))
    return Tree(part(nnx.to_pure_dict(first)), gradients, origin)


def cross_entropy(net, images, labels):
    """The mean over the batch."""
    return optax.softmax_cross_entropy_with_integer_labels(net(images), labels).mean()


def digits(side, batch=128):
    """Batches of scikit-learn's digits, 8 x 8, or enlarged to a larger side."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1) / 16
    scale = -(-side // 8)
    cut = (8 * scale - side) // 2
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)[:, cut : cut + side, cut : cut + side]
    order = np.random.default_rng(0).permutation(len(images))
    starts = range(0, len(images) - batch + 1, batch)
    return [(images[order[i : i + batch]], labels[order[i : i + batch]]) for i in starts]


def resnet50(small=False):
    """ImageNet's ResNet50: 161 leaves, 25.6 million parameters."""
    size = {"width": 4, "depths": (1,), "classes": 8} if small else {"classes": 1000}
    model = ResNet50(stem="imagenet", rngs=nnx.Rngs(0), **size)
    photos = [image.astype(np.float32) / 127.5 - 1 for image in load_sample_images().images]
    rng = np.random.default_rng(0)

    def crop(side=64):
        photo, tile = int(rng.integers(2)), rng.integers(2, size=2)
        top, left = (int(rng.integers(n // 2 - side)) + n // 2 * half for n, half in zip((427, 640), tile, strict=True))
        return photos[photo][top : top + side, left : left + side], photo * 4 + int(tile @ (2, 1))

    batches = [tuple(map(np.stack, zip(*(crop() for _ in range(4)), strict=True))) for _ in range(GRADIENTS)]
    return recorded(model, cross_entropy, batches, "of training steps on crops of two photographs, 4 of 64 x 64 each")


def transformer_xl(small=False):
    """The layers of the base Transformer-XL, without its embedding: 54.6 million parameters."""
    size = {"layers": 1, "features": 16, "heads": 2, "head_size": 8, "hidden": 32} if small else {}
    model = TransformerXL(vocabulary=256, mem_len=32, dropout=0.0, rngs=nnx.Rngs(0), **size)
    memory = model.empty_memory(2)
    return recorded(
        model,
        lambda model, tokens, targets: model.losses(tokens, targets, memory)[0].mean(),
        text(2, 32, GRADIENTS),
        "of training steps on the bytes of an English text, 2 segments of 32 each",
        part=lambda params: params["layers"],
    )


def mlp(small=False):
    """The seven dense layers of the NeurIPS paper's low-rank experiment, 784-512-256-128-64-32-16-10."""
    model = MLP((784, 16, 10) if small else (784, 512, 256, 128, 64, 32, 16, 10), rngs=nnx.Rngs(0))
    return recorded(model, cross_entropy, digits(28)[:GRADIENTS], "of training steps on 128 enlarged digits each")


def demo(small=False):
    """The convolutional net of `make demo`: 151,306 parameters."""
    del small
    return recorded(ConvNet(nnx.Rngs(0)), cross_entropy, digits(8)[:GRADIENTS], "of training steps on 128 digits each")


def text(batch, length, count):
    """`count` batches (tokens, targets), int32 `[batch, length]`: bytes of the digits data's description."""
    description: str = cast(Any, load_digits()).DESCR
    tokens = np.frombuffer(description.encode(), np.uint8).astype(np.int32)
    starts = np.random.default_rng(0).integers(len(tokens) - length, size=(count, batch))
    windows = [np.stack([tokens[start : start + length + 1] for start in row]) for row in starts]
    return [(window[:, :-1], window[:, 1:]) for window in windows]


def generated(shapes, seed=0):
    """A `Tree` of leaves `00000`, `00001`, ... of these shapes.

    The gradients of matrices have rows and columns of log-normal sizes and a common part beside the noise of the batch.
    """
    rng = np.random.default_rng(seed)

    def normal(shape):
        return rng.standard_normal(shape, dtype=np.float32)

    params, gradients = {}, [{} for _ in range(GRADIENTS)]
    for number, shape in enumerate(shapes):
        name = f"{number:05}"
        params[name] = 0.5 * normal(shape) / np.float32(max(1, np.prod(shape[:-1])) ** 0.5)
        sizes = np.float32(1e-3)
        if len(shape) > 1:
            sizes = sizes * np.exp(normal((shape[-2], 1))) * np.exp(normal((1, shape[-1])))
        common = normal(shape)
        for gradient in gradients:
            gradient[name] = sizes * (0.3 * common + normal(shape))
    return Tree(params, gradients, "generated")


def matrix_4096(small=False):
    """One square matrix."""
    return generated([(64, 64) if small else (4096, 4096)])


def small_leaves(count):
    """Leaves of four shapes, 64 to 288 parameters each, in turn."""
    return generated(itertools.islice(itertools.cycle([(16, 16), (8, 32), (3, 3, 4, 8), (64,)]), count))


def small_2000(small=False):
    """2,000 small leaves."""
    return small_leaves(8 if small else 2000)


TREES = {
    "resnet50": resnet50,
    "transformer_xl": transformer_xl,
    "mlp": mlp,
    "demo": demo,
    "matrix_4096": matrix_4096,
    "small_2000": small_2000,
}
