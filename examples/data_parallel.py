"""RAMDA on many devices, data parallel: `jit` with shardings, and `pmap`, compared with one device.

    python -m examples.data_parallel

Every device has all parameters and an eighth of the batch. The optimizer needs no change: it gets the mean gradient. On
a machine with one CPU the eight devices are simulated.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import ramda_jax
from examples.training.arguments import at_least, command
from ramda_jax import metrics

BATCH = 256
REGULARIZER = ramda_jax.GroupLasso("input")


def make_optimizer(steps):
    """RAMDA in two stages; in the last c_t grows to 1, so that W has exact zeros."""
    settings = ramda_jax.stages(learning_rate=1e-2, averaging=0.2, eps=1e-6, ends=(steps // 2,))
    return ramda_jax.ramda(regularizer=REGULARIZER, strength=2e-3, **settings)


def init_params():
    """A multilayer perceptron, 64 pixels to 64 hidden units to 10 classes."""
    first, second = jax.random.split(jax.random.key(0))
    return {
        "hidden": {"kernel": jax.random.normal(first, (64, 64)) / 8, "bias": jnp.zeros(64)},
        "out": {"kernel": jax.random.normal(second, (64, 10)) / 8, "bias": jnp.zeros(10)},
    }


def loss_fn(params, images, labels):
    """The mean cross entropy."""
    hidden = jax.nn.relu(images @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    logits = hidden @ params["out"]["kernel"] + params["out"]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def batches(steps):
    """The batches, the same for all three ways."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32) / 16
    rng = np.random.default_rng(0)
    for _ in range(steps):
        chosen = rng.permutation(len(images))[:BATCH]
        yield images[chosen], labels[chosen]


def make_step(optimizer, mean=lambda grads: grads):
    """One step; `mean` takes the gradients' mean over the devices if JAX does not do it itself."""

    def train_step(params, state, images, labels):
        grads = mean(jax.grad(loss_fn)(params, images, labels))
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return train_step


def train_on_one_device(steps):
    """Trains on one device, for comparison."""
    optimizer = make_optimizer(steps)
    train_step = jax.jit(make_step(optimizer), donate_argnums=(0, 1))
    params = init_params()
    state = optimizer.init(params)
    for images, labels in batches(steps):
        params, state = train_step(params, state, images, labels)
    return params


def train_with_jit(steps):
    """`jit`: you give the shardings of arrays, and XLA inserts the sum over the devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    optimizer = make_optimizer(steps)
    train_step = jax.jit(
        make_step(optimizer), in_shardings=(whole, whole, split, split), out_shardings=whole, donate_argnums=(0, 1)
    )
    params = jax.device_put(init_params(), whole)
    state = jax.jit(optimizer.init, out_shardings=whole)(params)
    for images, labels in batches(steps):
        params, state = train_step(params, state, *jax.device_put((images, labels), split))
        jax.block_until_ready(params)  # only for simulated devices: steps queued ahead can block their few threads
    return params


def train_with_pmap(steps):
    """`pmap`: each device has a copy of everything, and the step takes the mean explicitly."""
    devices = jax.device_count()
    optimizer = make_optimizer(steps)
    train_step = jax.pmap(make_step(optimizer, lambda grads: jax.lax.pmean(grads, "data")), axis_name="data")
    params = init_params()

    def copies(tree):
        return jax.tree.map(lambda x: jnp.stack([x] * devices), tree)

    params, state = copies(params), copies(optimizer.init(params))
    for images, labels in batches(steps):
        params, state = train_step(params, state, images.reshape(devices, -1, 64), labels.reshape(devices, -1))
        jax.block_until_ready(params)
    return jax.tree.map(lambda x: x[0], params)


def main(argv=None):
    """Trains in all three ways and compares; returns the parameters of each."""
    parser = command("data_parallel", "Data-parallel RAMDA on simulated or real devices.")
    parser.add_argument("--steps", type=at_least(4), default=400, help="default: 400")
    args = parser.parse_args(argv)
    if BATCH % jax.device_count():
        parser.error(f"the {jax.device_count()} devices must divide the batch of {BATCH}")

    results = {
        "one device": train_on_one_device(args.steps),
        f"jit, {jax.device_count()} devices": train_with_jit(args.steps),
        f"pmap, {jax.device_count()} devices": train_with_pmap(args.steps),
    }
    results = {name: jax.device_get(params) for name, params in results.items()}
    expected = results["one device"]
    for name, params in results.items():
        alive = {path: int(np.sum(groups)) for path, groups in metrics.support(REGULARIZER, params).items()}
        distance = max(np.max(np.abs(a - b)) for a, b in zip(*map(jax.tree.leaves, (params, expected)), strict=True))
        print(f"{name:16}  inputs left: {alive}  largest difference: {distance:.1e}")
    return results


if __name__ == "__main__":
    # This must be set before JAX looks for devices. On accelerators it uses the existing ones.
    jax.config.update("jax_num_cpu_devices", 8)
    main()
