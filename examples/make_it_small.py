"""A net of the size that you ask for: found, held, certified, made small, saved, reported.

    python -m examples.make_it_small --keep 0.3                       # three tenths of the parameters of a conv net
    python -m examples.make_it_small --keep 0.3 --of flops --net mlp
    python -m examples.make_it_small --keep 0.1 --data-dir data/mnist --net lenet5 --epochs 10
    python -m examples.make_it_small --table                          # beside RAMDA alone, over sizes and seeds

In the first half of the run RAMDA finds what the net does not need. Then its zeros are held while Adam trains the rest.
"""

import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tabulate import tabulate

import ramda_jax
from examples.digits import BATCH, ConvNet
from examples.models import MLP, LeNet5
from examples.sparse_to_small import held_out_accuracy, load
from examples.training.arguments import at_least, command
from ramda_jax import compaction, metrics

NETS = {
    "conv": lambda rngs: ConvNet(rngs),
    "mlp": lambda rngs: MLP((64, 256, 128, 10), rngs=rngs),
    "lenet5": lambda rngs: LeNet5(rngs=rngs),
}
TABLE_KEEPS = (0.5, 0.3, 0.15)


def make_train_step(regularizer):
    """A step that returns which groups of the new parameters are not zero."""

    @nnx.jit(donate_argnames=("model", "optimizer"))
    def train_step(model, optimizer, images, labels):
        def loss_fn(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

        optimizer.update(model, nnx.grad(loss_fn)(model))
        return metrics.support(regularizer, nnx.state(model, nnx.Param))

    return train_step


def train(train_step, model, optimizer, data, steps, shuffle):
    """Trains a model in place for some steps; returns the history of the structure of W."""
    images, _, labels, _ = data
    history = metrics.StructureHistory()
    order = shuffle.permutation(len(images))
    for step in range(steps):
        if len(order) < BATCH:
            order = shuffle.permutation(len(images))
        batch, order = order[:BATCH], order[BATCH:]
        history.add(step, train_step(model, optimizer, images[batch], labels[batch]))
    return history


class Problem:
    """A net, its data, and the groups whose removal makes it smaller, with their costs."""

    def __init__(self, net, data, of, seed):
        self.data, self.seed = data, seed
        self.model = NETS[net](nnx.Rngs(seed))
        self.batch = jnp.asarray(data[0][:BATCH])
        one = self.batch[:1]
        self.dims = compaction.trace_dims(self.model, one)
        coupling = compaction.couple(self.dims, nnx.state(self.model, nnx.Param), weight="saving")
        self.coupling, self.regularizer = coupling, coupling.regularizer()
        self.train_step = make_train_step(self.regularizer)
        self.removed = compaction.share_removed(self.dims, of, self.regularizer)

    def target(self, keep):
        """The `Target` that leaves that share of the parameters or FLOPs."""
        return ramda_jax.Target(1 - keep, of=self.removed)

    def params_left(self, params):
        """The share of the parameters that compaction would leave."""
        whole, small = compaction.plan_compaction(self.dims, params).num_params[:2]
        return small / whole


def make_optimizer(problem, method, keep, learning_rate, total_steps):
    """The recipe, or RAMDA alone for the whole run."""
    target = problem.target(keep)
    if method == "recipe":
        return ramda_jax.ramda_then_hold(learning_rate, problem.regularizer, target, total_steps=total_steps)
    settings = ramda_jax.stages(learning_rate, total_steps=total_steps)
    ramda = ramda_jax.ramda(regularizer=problem.regularizer, strength=target, **settings)
    return problem.coupling.wrap(ramda)


def table(net, data, of, learning_rate, epochs, seeds):
    """Compares the recipe with RAMDA alone: remaining parameters and test accuracy, for each seed and on average."""
    steps = epochs * (len(data[0]) // BATCH)
    rows = []
    for keep in TABLE_KEEPS:
        for method in ("recipe", "RAMDA alone"):
            left, right = [], []
            for seed in seeds:
                problem = Problem(net, data, of, seed)
                tx = make_optimizer(problem, method, keep, learning_rate, steps)
                optimizer = nnx.Optimizer(problem.model, tx, wrt=nnx.Param)
                train(problem.train_step, problem.model, optimizer, data, steps, np.random.default_rng(seed))
                params = nnx.state(problem.model, nnx.Param)
                nnx.update(problem.model, ramda_jax.eval_params(optimizer.opt_state, params))
                left.append(problem.params_left(nnx.state(problem.model)))
                right.append(held_out_accuracy(problem.model, data))
            rows.append([keep, method, _mean(left), _mean(right)])
            print("  ".join(map(str, rows[-1])), flush=True)
    return tabulate(rows, headers=["asked for", "", "parameters left", "test accuracy"], disable_numparse=True)


def _mean(values):
    return f"{statistics.mean(values):.1%} ({' '.join(f'{value:.1%}' for value in values)})"


def main(argv=None):
    """Reads the command line and tells the story; returns the report, or the table."""
    parser = command("make_it_small", "A net of the size that you ask for.")
    parser.add_argument("--keep", type=float, default=0.3, help="the share to keep, in (0, 1) (default: 0.3)")
    parser.add_argument("--of", choices=("parameters", "flops"), default="parameters", help="default: parameters")
    parser.add_argument("--net", choices=NETS, default="conv", help="lenet5 is for MNIST (default: conv)")
    parser.add_argument("--data-dir", type=Path, help="MNIST's folder (downloaded if need be); without it: digits")
    parser.add_argument("--epochs", type=at_least(1), default=60, help="of both phases (default: 60)")
    parser.add_argument("--fine-tune", type=at_least(0), default=0, help="epochs of the small net (default: none)")
    parser.add_argument("--learning-rate", type=float, default=3e-2, help="RAMDA's; Adam has a tenth (default: 0.03)")
    parser.add_argument("--seed", type=at_least(0), default=1, help="of the initial net and the batches (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("out/make_it_small"), help="default: out/make_it_small")
    parser.add_argument("--table", action="store_true", help="compare with RAMDA alone instead, over sizes and seeds")
    parser.add_argument("--seeds", type=at_least(1), default=2, help="of the table (default: 2)")
    args = parser.parse_args(argv)
    if not 0 < args.keep < 1:
        parser.error(f"--keep must be above 0 and below 1, got {args.keep}; use for example --keep 0.3")
    if (args.net == "lenet5") != (args.data_dir is not None):
        parser.error("--net lenet5 and --data-dir go together: the other nets are for digits; give both or neither")
    data = load(args.data_dir)
    if (total := args.epochs * (len(data[0]) // BATCH)) < 16:
        parser.error(f"--epochs must be long enough for two phases of 8 steps, got {total} steps; use more epochs")
    if args.table:
        found = table(args.net, data, args.of, args.learning_rate, args.epochs, range(1, args.seeds + 1))
        print(found)
        return found

    problem = Problem(args.net, data, args.of, args.seed)
    model, shuffle = problem.model, np.random.default_rng(args.seed)
    switch = total // 2
    recipe = make_optimizer(problem, "recipe", args.keep, args.learning_rate, total)
    optimizer = nnx.Optimizer(model, recipe, wrt=nnx.Param)

    print(f"1. Find what can go: RAMDA for {switch} steps; {args.keep:.0%} of the {args.of} are to be left")
    # The last half of the recipe's last stage, for the structure's history and the certificate. lambda still moves:
    # the certificate is for the last one.
    part = max(3 * switch // 40, 1)
    train(problem.train_step, model, optimizer, data, switch - part, shuffle)
    earlier = jax.tree.map(jnp.copy, optimizer.opt_state)
    history = train(problem.train_step, model, optimizer, data, part, shuffle)
    params, opt_state = nnx.state(model, nnx.Param), optimizer.opt_state
    strength = optax.tree.get(opt_state, "strength")
    certificate = metrics.certificate(opt_state, params, earlier)
    print(f"   lambda {float(strength.current[...]):.2g}, parameters left {problem.params_left(nnx.state(model)):.1%}")
    print(f"   groups that changed in the last {part} steps: {sum(history.changes)}")
    print("   " + str(certificate).replace("\n", "\n   "))
    print(f"   test accuracy {held_out_accuracy(model, data):.1%}")

    print(f"\n2. Hold the zeros: Adam trains what is left for {total - switch} steps")
    held = metrics.support(problem.regularizer, nnx.state(model, nnx.Param))
    train(problem.train_step, model, optimizer, data, total - switch, shuffle)
    params = nnx.state(model, nnx.Param)
    alive = metrics.support(problem.regularizer, params)
    changed = sum(int(jnp.sum(held[path] != mask)) for path, mask in alive.items())
    print(f"   test accuracy {held_out_accuracy(model, data):.1%}, groups that came or went: {changed}")

    print("\n3. Compact, and prove it equal")
    small = compaction.compact_model(model, problem.batch)
    print("   " + str(small).replace("\n", "\n   "))
    report = small.report(problem.batch, regularizer=problem.regularizer, params=params)

    if args.fine_tune:
        print(f"\n4. Fine-tune the small net for {args.fine_tune} epochs")
        steps = args.fine_tune * (len(data[0]) // BATCH)
        rate = optax.cosine_decay_schedule(args.learning_rate / 30, steps)
        tuner = nnx.Optimizer(small.model, optax.adam(rate), wrt=nnx.Param)
        train(make_train_step(ramda_jax.GroupLasso()), small.model, tuner, data, steps, shuffle)
        print(f"   test accuracy {held_out_accuracy(small.model, data):.1%}")

    args.out.mkdir(parents=True, exist_ok=True)
    compaction.save_compact(args.out / "compact", small.plan, nnx.state(small.model))
    print(f"\nSaved in {args.out / 'compact'}\n\n{report}")
    return report


if __name__ == "__main__":
    main()
