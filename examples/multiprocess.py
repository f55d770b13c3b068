"""The digits net of `examples/digits.py`, trained by several processes with `jax.distributed` and by one.

    python -m examples.multiprocess

Every process computes the gradient of its part of each batch; XLA sums them over the processes (here by gloo, on
localhost). On a cluster each machine only has to run `train` after `jax.distributed.initialize()`.
"""

import argparse
import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ramda_jax
from examples import digits
from examples.training.arguments import at_least, command
from ramda_jax import files, metrics

STEPS = 600


def train(steps, batch=digits.BATCH, strength=digits.STRENGTH, seed=0):
    """Trains on all devices of all processes; returns (test accuracy, the remaining parts of the layers)."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))

    # Every process makes the same net and the same batches, and gives its own part of each batch to its devices.
    def share(array, sharding):
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    images, test_images, labels, test_labels = digits.digits()
    model, params = nnx.split(digits.ConvNet(nnx.Rngs(seed)), nnx.Param)
    params = jax.tree.map(lambda p: share(np.asarray(p), whole), params)
    settings = ramda_jax.stages(learning_rate=2e-2, averaging=0.2, eps=1e-6, ends=(steps // 4, steps // 2))
    optimizer = ramda_jax.ramda(regularizer=digits.REGULARIZER, strength=strength, **settings)
    state = jax.jit(optimizer.init, out_shardings=whole)(params)

    @jax.jit(donate_argnums=(0, 1), out_shardings=whole)
    def train_step(params, state, images, labels):
        def loss_fn(params):
            logits = nnx.merge(model, params)(images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss_fn)(params), state, params)
        return optax.apply_updates(params, updates), state

    shuffle = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = shuffle.permutation(len(images))[:batch]
        params, state = train_step(params, state, share(images[chosen], split), share(labels[chosen], split))
        jax.block_until_ready(params)
    params = jax.device_get(params)
    score = float(digits.accuracy(nnx.merge(model, params), test_images, test_labels))
    support = metrics.support(digits.REGULARIZER, params)
    return score, {path: np.flatnonzero(alive).tolist() for path, alive in support.items()}


def free_port():
    """A free port of localhost."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_processes(count, arguments, timeout):
    """Starts the processes and waits for all; ends the others if one fails or the time is over."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "examples.multiprocess", *arguments, "--address", address, "--count", str(count)]
    root = Path(__file__).parents[1]
    processes = [subprocess.Popen([*command, "--process", str(number)], cwd=root) for number in range(count)]
    try:
        for process in processes:
            if process.wait(timeout=timeout):
                raise SystemExit("A process failed; see above.")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main(argv=None):
    """Reads the command line; starts the processes, or is one of them."""
    parser = command("multiprocess", "The digits net on several processes.")
    parser.add_argument("--steps", type=at_least(4), default=STEPS, help=f"default: {STEPS}")
    parser.add_argument("--batch", type=at_least(1), default=digits.BATCH, help=f"default: {digits.BATCH}")
    parser.add_argument("--strength", type=float, default=1e-3, help="default: 1e-3")
    parser.add_argument("--count", type=at_least(1), default=2, help="processes (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the results (default: out)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for all (default: 900)")
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.batch % args.count:
        parser.error(f"--count must divide --batch, got {args.count} for {args.batch}; use another of either")

    out = args.out.resolve()
    if args.process is None:
        settings = ["--steps", str(args.steps), "--batch", str(args.batch), "--strength", str(args.strength)]
        settings += ["--out", str(out)]
        results = {}
        for count in (1, args.count):
            run_processes(count, settings, args.timeout)
            results[count] = json.loads((out / f"multiprocess-{count}.json").read_text())
            left = {path: len(alive) for path, alive in results[count]["support"].items()}
            print(f"{count} process(es): test accuracy {results[count]['accuracy']:.1%}, inputs left {left}")
        same = results[1]["support"] == results[args.count]["support"]
        print("The supports are the same." if same else "The supports differ.")
        return
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(args.address, args.count, args.process, initialization_timeout=60)
    accuracy, support = train(args.steps, args.batch, args.strength)
    if args.process == 0:
        out.mkdir(parents=True, exist_ok=True)
        result = {"processes": jax.process_count(), "accuracy": accuracy, "support": support}
        files.write_whole(out / f"multiprocess-{args.count}.json", json.dumps(result) + "\n")
    jax.distributed.shutdown()


if __name__ == "__main__":
    main()
