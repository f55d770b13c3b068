"""The problems of `benchmarks.certificate`: an initial point from a key, and random gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

BATCH = 32


def digits():
    """(images in [0, 1], labels)."""
    pixels, labels = load_digits(return_X_y=True)
    return jnp.asarray(pixels / 16, jnp.float32), jnp.asarray(labels)


def on_digits(forward, init):
    """A problem: parameters from a key, and the gradient of a batch drawn with replacement by a key."""
    images, labels = digits()

    def gradient(params, key, step):
        del step
        batch = jax.random.randint(key, (BATCH,), 0, len(labels))

        def loss(params):
            logits = forward(params, images[batch])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()

        return jax.grad(loss)(params)

    return init, gradient


def logistic():
    """Logistic regression: one matrix with a group for each of the 64 pixels."""

    def init(key):
        del key
        return {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}

    return on_digits(lambda params, x: x @ params["kernel"] + params["bias"], init)


def conv_net():
    """The net of `examples.digits` with an eighth of its channels: two convolutions and two dense layers."""
    shapes = {"conv1": (3, 3, 1, 8), "conv2": (3, 3, 8, 8), "dense1": (128, 16), "dense2": (16, 10)}

    def init(key):
        keys = jax.random.split(key, len(shapes))
        he = jax.nn.initializers.he_normal()
        return {
            name: {"kernel": he(key, shape), "bias": jnp.zeros(shape[-1])}
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    def patches(x):
        # Write the convolution as a matrix product, which is fast under vmap on a CPU.
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = x.shape[1:3]
        return jnp.stack([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], 3)

    def forward(params, x):
        x = x.reshape(-1, 8, 8, 1)
        for name, stride in (("conv1", 1), ("conv2", 2)):
            kernel = params[name]["kernel"].reshape(9, *shapes[name][2:])
            x = jnp.einsum("bhwki,kio->bhwo", patches(x)[:, ::stride, ::stride], kernel)
            x = jax.nn.relu(x + params[name]["bias"])
        x = jax.nn.relu(x.reshape(len(x), -1) @ params["dense1"]["kernel"] + params["dense1"]["bias"])
        return x @ params["dense2"]["kernel"] + params["dense2"]["bias"]

    return on_digits(forward, init)


def moving(num_steps):
    """32 groups of 4 with mean gradients of 0.5 around 0; in half of them the mean grows to 3 from the middle on."""

    def init(key):
        del key
        return {"kernel": jnp.zeros((32, 4))}

    def gradient(params, key, step):
        noise = jax.random.normal(key, (32, 4))
        moved = 5 * jnp.clip(step / num_steps - 0.4, 0) * (jnp.arange(32) >= 16)
        return {"kernel": 0.1 * params["kernel"] + 0.25 + moved[:, None] + noise}

    return init, gradient


def low_rank():
    """Regression on a 16 x 8 matrix M by normal inputs: a batch's mean of x (x (W - M) + noise).

    The second moment of x is the identity, so the minimiser has the singular values of M less lambda: with 0.5 they are
    2.5, 1 and zeros with the margins 0, 0.01, 0.1, 0.3 and 0.5.
    """
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(side, 8)))[0] for side in (16, 8))
    matrix = jnp.asarray((left * [3, 1.5, 0.5, 0.49, 0.4, 0.2, 0, 0]) @ right.T, jnp.float32)

    def init(key):
        del key
        return {"kernel": jnp.zeros((16, 8))}

    def gradient(params, key, step):
        del step
        of_inputs, of_noise = jax.random.split(key)
        x = jax.random.normal(of_inputs, (BATCH, 16))
        error = x @ (params["kernel"] - matrix) + 0.5 * jax.random.normal(of_noise, (BATCH, 8))
        return {"kernel": x.T @ error / BATCH}

    return init, gradient


def moving_rank(num_steps):
    """A 12 x 8 matrix whose mean gradient is 0, until two of its singular values grow to 12 from step 0.4 T on."""
    directions = jnp.eye(12, 8) * (jnp.arange(8) < 2)

    def init(key):
        del key
        return {"kernel": jnp.zeros((12, 8))}

    def gradient(params, key, step):
        noise = 0.3 * jax.random.normal(key, (12, 8))
        return {"kernel": 0.1 * params["kernel"] + 20 * jnp.clip(step / num_steps - 0.4, 0) * directions + noise}

    return init, gradient
