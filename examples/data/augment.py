"""Augmentation of batches of images on the device, inside the jitted step."""

import jax
import jax.numpy as jnp


def normalise(images, mean, std):
    """Bytes to numbers of the given mean and standard deviation per colour, those of pixels scaled to [0, 1]."""
    return (images / 255 - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def random_flip(key, images):
    """Each image mirrored left to right with probability 1/2."""
    flips = jax.random.bernoulli(key, 0.5, (len(images),))
    return jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)


def random_crop(key, images, pad=4, mode="constant"):
    """Each image moved by up to `pad` pixels in each direction; zeros (or a reflection) come in."""
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=mode)
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pad + 1)

    def crop(image, corner):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, image.shape[2]))

    return jax.vmap(crop)(padded, corners)


def random_resized_crop(key, images, side, scale=(0.67, 1.0), ratio=(3 / 4, 4 / 3)):
    """A random part of each image, of random area and aspect ratio, resized to `side` x `side` (bilinear).

    torchvision's rule: area uniform in `scale`, log aspect ratio uniform in `ratio`, ten tries for one that fits. Here
    the first of ten that fits is taken, or the whole image if none does.
    """
    height, width = images.shape[1:3]

    def crop_and_resize(key, image):
        area_key, ratio_key, corner_key = jax.random.split(key, 3)
        area = height * width * jax.random.uniform(area_key, (10,), minval=scale[0], maxval=scale[1])
        low, high = jnp.log(ratio[0]), jnp.log(ratio[1])
        aspect = jnp.exp(jax.random.uniform(ratio_key, (10,), minval=low, maxval=high))
        widths, heights = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
        fits = (widths <= width) & (heights <= height)
        pick = jnp.argmax(fits)
        size = jnp.where(fits[pick], jnp.stack([heights[pick], widths[pick]]), jnp.array([height, width], jnp.float32))
        # A whole pixel, as torchvision's.
        corner = jnp.floor(jax.random.uniform(corner_key, (2,)) * (jnp.array([height, width]) - size + 1))
        factor = side / size
        shape = (side, side, image.shape[2])
        return jax.image.scale_and_translate(image, shape, (0, 1), factor, -corner * factor, "linear", antialias=True)

    return jax.vmap(crop_and_resize)(jax.random.split(key, len(images)), images.astype(jnp.float32))


def block_masks(key, count, grid=14, blocks=7, share=0.6):
    """Which patches to mask: bool `[count, grid, grid]`, ceil(share blocks^2) random squares of patches in each."""
    masked = -int(-share * blocks**2 // 1)
    scores = jax.random.uniform(key, (count, blocks**2))
    chosen = jnp.argsort(jnp.argsort(scores, axis=1), axis=1) < masked
    size = grid // blocks
    return jnp.repeat(jnp.repeat(chosen.reshape(count, blocks, blocks), size, axis=1), size, axis=2)
