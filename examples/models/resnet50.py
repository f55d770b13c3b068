"""ResNet50 for CIFAR and for ImageNet."""

import functools

import jax.numpy as jnp
from flax import nnx

from examples.models.layers import batch_norm, conv, kaiming_fan_out, linear, max_pool, torch_kernel

EXPANSION = 4


class Bottleneck(nnx.Module):
    """Convolutions of 1 x 1, 3 x 3 (with the stride, as in torchvision) and 1 x 1 with batch norm, and a shortcut."""

    def __init__(self, inputs, width, strides, *, kernel_init, rngs, dtype):
        outputs = EXPANSION * width
        make = functools.partial(conv, use_bias=False, kernel_init=kernel_init, rngs=rngs, dtype=dtype)
        norm = functools.partial(batch_norm, rngs=rngs, dtype=dtype)
        self.conv1, self.norm1 = make(inputs, width, 1), norm(width)
        # Pad by one on each side, because "SAME" pads a strided convolution on one side only.
        self.conv2 = make(width, width, 3, strides=strides, padding=((1, 1), (1, 1)))
        self.norm2 = norm(width)
        self.conv3, self.norm3 = make(width, outputs, 1), norm(outputs)
        self.has_projection = strides != 1 or inputs != outputs
        if self.has_projection:
            self.projection, self.projection_norm = make(inputs, outputs, 1, strides=strides), norm(outputs)

    def __call__(self, x):
        shortcut = self.projection_norm(self.projection(x)) if self.has_projection else x
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        return nnx.relu(self.norm3(self.conv3(x)) + shortcut)


class ResNet50(nnx.Module):
    """ResNet50 v1 with the stem of CIFAR (3 x 3, no pooling) or of ImageNet (7 x 7 with stride 2, max pooling).

    For CIFAR (weiaicunzai's layout, which the papers use) it has 23,520,842 parameters for 10 classes and PyTorch's
    default initialisation. For ImageNet (torchvision's layout) it has 25,557,032 parameters for 1,000 classes,
    Kaiming-normal convolutions, and no zeros in the residuals' last batch norms.
    """

    def __init__(
        self, classes=10, stem="cifar", width=64, depths=(3, 4, 6, 3), *, kernel_init=None, rngs, dtype=jnp.float32
    ):
        is_cifar = stem == "cifar"
        kernel_init = kernel_init or (torch_kernel if is_cifar else kaiming_fan_out)
        size, strides, pad = (3, 1, 1) if is_cifar else (7, 2, 3)
        self.stem = stem
        self.conv = conv(
            3,
            width,
            size,
            strides=strides,
            padding=((pad, pad), (pad, pad)),
            use_bias=False,
            kernel_init=kernel_init,
            rngs=rngs,
            dtype=dtype,
        )
        self.norm = batch_norm(width, rngs=rngs, dtype=dtype)
        self.blocks = nnx.List()
        inputs = width
        for stage, depth in enumerate(depths):
            for block in range(depth):
                strides = 2 if stage > 0 and block == 0 else 1
                block_width = width * 2**stage
                self.blocks.append(
                    Bottleneck(inputs, block_width, strides, kernel_init=kernel_init, rngs=rngs, dtype=dtype)
                )
                inputs = EXPANSION * block_width
        self.classifier = linear(inputs, classes, rngs=rngs, dtype=dtype)

    def __call__(self, x, *, rngs=None):
        x = nnx.relu(self.norm(self.conv(x)))
        if self.stem != "cifar":
            x = max_pool(x, 3, 2, ((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return self.classifier(jnp.mean(x, axis=(1, 2)))


def imagenet_resnet50(classes=1000, *, rngs, dtype=jnp.float32):
    """The ResNet50 for ImageNet."""
    return ResNet50(classes, "imagenet", rngs=rngs, dtype=dtype)


def rigl_resnet50(classes=10, width=64, depths=(3, 4, 6, 3), *, rngs, dtype=jnp.float32):
    """The RigL reproduction's ResNet50 for CIFAR: Kaiming-normal, with zeros in the residuals' last batch norms."""
    model = ResNet50(classes, "cifar", width, depths, kernel_init=kaiming_fan_out, rngs=rngs, dtype=dtype)
    for block in model.blocks:
        assert block.norm3.scale is not None
        block.norm3.scale[...] = jnp.zeros_like(block.norm3.scale[...])
    return model
