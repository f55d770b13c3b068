"""VGG19 with batch norm and a single linear classifier, for CIFAR."""

import jax.numpy as jnp
from flax import nnx

from examples.models.layers import batch_norm, conv, kaiming_fan_out, linear, max_pool


class VGG19(nnx.Module):
    """Sixteen convolutions of 3 x 3 in five blocks (torchvision's `vgg19_bn`, configuration E) and one linear layer.

    It has 20,040,522 parameters for 10 classes. Each convolution has a bias, initially zero, before its batch norm. The
    classifier has PyTorch's default initialisation; the ICLR paper's code draws it from N(0, 0.01).
    """

    def __init__(self, classes=10, widths=(64, 128, 256, 512, 512), depths=(2, 2, 4, 4, 4), *, rngs, dtype=jnp.float32):
        inputs = 3
        self.convs, self.norms = nnx.List(), nnx.List()
        for width, depth in zip(widths, depths, strict=True):
            for _ in range(depth):
                layer = conv(inputs, width, 3, kernel_init=kaiming_fan_out, rngs=rngs, dtype=dtype)
                assert layer.bias is not None
                layer.bias[...] = jnp.zeros_like(layer.bias[...])
                self.convs.append(layer)
                self.norms.append(batch_norm(width, rngs=rngs, dtype=dtype))
                inputs = width
        self.depths = depths
        self.classifier = linear(inputs, classes, rngs=rngs, dtype=dtype)

    def __call__(self, x, *, rngs=None):
        layers = iter(zip(self.convs, self.norms, strict=True))
        for depth in self.depths:
            for _ in range(depth):
                convolution, norm = next(layers)
                x = nnx.relu(norm(convolution(x)))
            x = max_pool(x)
        return self.classifier(x.reshape(len(x), -1))
