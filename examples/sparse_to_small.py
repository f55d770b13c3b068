"""From sparse to small: RAMDA finds the parts that a net does not need, and they are cut out, with a proof.

    python -m examples.sparse_to_small                          # a convolutional net on digits
    python -m examples.sparse_to_small --data-dir data/mnist    # LeNet5 on MNIST

Trains until the structure has settled, cuts out the channels that nothing reads, proves that the small net computes
the same, fine-tunes it with its zeros held, exports it by `jax.export`, and reports what was saved.
"""

from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import ramda_jax
from examples.data.idx import load_mnist
from examples.digits import EPOCHS, REGULARIZER, STAGE_ENDS, ConvNet, accuracy, digits
from examples.models import LeNet5
from examples.training.arguments import at_least, command
from ramda_jax import compaction, files, metrics

BATCH = 128
#: The shares of MNIST's epochs after which RAMDA's stages end. The rest is the last stage, in which zeros settle.
STAGES = (0.15, 0.3, 0.45, 0.6, 0.75)


def load(folder) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(training images, test images, training labels, test labels) of MNIST, or of the digits where folder is None."""
    if folder is None:
        images, test_images, labels, test_labels = map(np.asarray, digits())
        return images, test_images, labels, test_labels
    train, test = load_mnist(folder)
    images, test_images = (np.asarray(split.images, np.float32) / 255 for split in (train, test))
    return images, test_images, np.asarray(train.labels), np.asarray(test.labels)


@nnx.jit(static_argnames="is_ours")
def train_step(model, optimizer, images, labels, is_ours):
    """One step; returns which groups are not zero, of the structured point or, with other optimizers, of W."""

    def loss_fn(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    optimizer.update(model, nnx.grad(loss_fn)(model))
    params = nnx.state(model, nnx.Param)
    return metrics.support(REGULARIZER, ramda_jax.eval_params(optimizer.opt_state, params) if is_ours else params)


def train(model, optimizer, data, epochs, seed=1, is_ours=True):
    """Trains a model in place; returns, for each epoch, how many times a group has become zero or nonzero."""
    images, _, labels, _ = data
    steps = len(images) // BATCH
    history, shuffle = metrics.StructureHistory(), np.random.default_rng(seed)
    for _ in range(epochs):
        for batch in shuffle.permutation(len(images))[: steps * BATCH].reshape(steps, BATCH):
            support = train_step(model, optimizer, images[batch], labels[batch], is_ours)
            history.add(len(history.steps), support)
    changes = [0, *history.changes]  # the first step has no predecessor
    return [sum(changes[-(left + 1) * steps : len(changes) - left * steps]) for left in reversed(range(epochs))]


def held_out_accuracy(model, data):
    """The share of test images that the model labels correctly."""
    return float(accuracy(model, data[1], data[3]))


def export(model, image_shape, path):
    """Writes a model as a separate program for any batch size, which needs neither this library nor Flax to run."""
    graph, state = nnx.split(model)

    def predict(images):
        return nnx.merge(graph, state)(images)

    [batch] = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    files.write_whole(path, bytes(jax.export.export(jax.jit(predict))(images).serialize()))


def main(argv=None):
    """Reads the command line, runs all steps and returns the report."""
    parser = command("sparse_to_small", "From a sparse net to a small one.")
    parser.add_argument("--data-dir", type=Path, help="MNIST's folder (downloaded if need be); without it: digits")
    parser.add_argument("--epochs", type=at_least(1), help="of training (default: 240 on digits, 10 on MNIST)")
    parser.add_argument("--strength", type=float, default=1e-4, help="of the group LASSO (default: 1e-4)")
    parser.add_argument("--round-to", type=at_least(1), default=1, help="keep a multiple of this number (default: 1)")
    parser.add_argument("--seed", type=at_least(0), default=1, help="of the initial net and the batches (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of what is written (default: out)")
    args = parser.parse_args(argv)
    rngs = nnx.Rngs(args.seed)
    data = load(args.data_dir)
    model = LeNet5(rngs=rngs) if args.data_dir else ConvNet(rngs)
    epochs = args.epochs or (10 if args.data_dir else EPOCHS)
    batch = jnp.asarray(data[0][:BATCH])

    print(f"1. Train with RAMDA, {epochs} epochs")
    steps = len(data[0]) // BATCH
    shares = STAGES if args.data_dir else [end / EPOCHS for end in STAGE_ENDS]
    ends = sorted({round(share * epochs) * steps for share in shares} - {0})
    # In each stage c_t begins at 0.1. In the last stage it grows to 1, and from there on W has exact zeros.
    stages = ramda_jax.stages(learning_rate=5e-2, averaging=0.1, eps=1e-6, ends=tuple(ends))
    ramda = ramda_jax.ramda(regularizer=REGULARIZER, strength=args.strength, **stages)
    optimizer = nnx.Optimizer(model, ramda, wrt=nnx.Param)
    changed = train(model, optimizer, data, epochs, args.seed)
    # The structured point, with any averaging. It is the same as W where the averaging has reached 1.
    params = nnx.state(model, nnx.Param)
    nnx.update(model, ramda_jax.eval_params(optimizer.opt_state, params))
    params = nnx.state(model, nnx.Param)
    sparsity = float(metrics.weighted_group_sparsity(REGULARIZER, params))
    print(f"   test accuracy {held_out_accuracy(model, data):.1%}, weighted group sparsity {sparsity:.1%}")
    print(f"   groups that changed in the last ten epochs: {' '.join(map(str, changed[-10:]))}")

    print("\n2. Compact, and prove it equal")
    small = compaction.compact_model(model, batch, round_to=args.round_to)
    print("   " + str(small).replace("\n", "\n   "))
    proof = small.proof
    print(
        f"   proof: {proof.equations} equations compared, outputs on {proof.batches} batches within {proof.error:.0e}"
    )

    print("\n3. Fine-tune what is left, its zeros held")
    before = metrics.support(REGULARIZER, nnx.state(small.model, nnx.Param))
    report = small.report(batch, regularizer=REGULARIZER, params=params)
    print(f"   test accuracy before {held_out_accuracy(small.model, data):.1%}")
    held = compaction.freeze_structure(nnx.state(small.model, nnx.Param), REGULARIZER)
    tuner = nnx.Optimizer(small.model, optax.chain(optax.adam(1e-4), held), wrt=nnx.Param)
    train(small.model, tuner, data, max(epochs // 10, 1), args.seed, is_ours=False)
    after = metrics.support(REGULARIZER, nnx.state(small.model, nnx.Param))
    lost = sum(int(jnp.sum(was != now)) for was, now in zip(*map(jax.tree.leaves, (before, after)), strict=True))
    print(f"   test accuracy after {held_out_accuracy(small.model, data):.1%}, groups that came or went: {lost}")

    print("\n4. Save and export")
    args.out.mkdir(parents=True, exist_ok=True)
    variables = nnx.state(small.model)
    compaction.save_compact(args.out / "compact", small.plan, variables)
    _, loaded = compaction.load_compact(args.out / "compact", like=variables)
    exported = args.out / "compact.jax_export"
    export(nnx.merge(nnx.graphdef(small.model), loaded), batch.shape[1:], exported)
    outputs = jax.export.deserialize(bytearray(exported.read_bytes())).call(batch[:7])
    error = float(jnp.abs(outputs - small.model(batch[:7])).max() / jnp.abs(outputs).max())
    print(f"   {exported}, {exported.stat().st_size:,} bytes; loaded, on another batch size, it is within {error:.0e}")

    print("\n5. What was saved")
    print("   " + str(report).replace("\n", "\n   "))
    compaction.draw_report(report, args.out / "sparse_to_small.png")
    print(f"\nThe figure: {args.out / 'sparse_to_small.png'}")
    return report


if __name__ == "__main__":
    main()
