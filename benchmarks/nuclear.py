"""How far the nuclear norm's step is from the exact solution of its subproblem, by solver and number of decompositions.

    python -m benchmarks.nuclear [--studies golden recorded training] [--json FILE] [--small]

golden    the largest difference of any entry at any of the 120 steps of the papers' code on a small problem
          (`tests/golden`), which solved every subproblem by thousands of iterations
recorded  the relative distance `||W - W*|| / ||W*||` to the exact solution W* of subproblems from the training of a
          dense net on scikit-learn's digits by RAMDA and ProxAdamW, each from the parameters of its step
training  the same training by each solver, from the same start and with the same batches: the relative distance of the
          last W_hat to that of a run that solves every subproblem down to 1e-4; accuracy on the held-out quarter; and
          the rank of W_hat, as a share of the full rank
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tabulate import tabulate

import ramda_jax
from benchmarks import recording
from examples.models import MLP
from ramda_jax import DouglasRachford, ProximalGradient
from tests.test_golden import GOLDEN, golden_optimizer, largest_deviation

RELEASED = "proximal gradient, as released"
SOLVERS = {
    f"{RELEASED}, 5": ProximalGradient(max_steps=5, rtol=1e-3),
    "FISTA, 5": ProximalGradient(max_steps=5, rtol=0.0, accelerate=True),
    "default, 5": ramda_jax.default_solver(ramda_jax.NuclearNorm()),
    "Douglas-Rachford, 10": DouglasRachford(max_steps=10, rtol=0.0),
    "Douglas-Rachford, 20": DouglasRachford(max_steps=20, rtol=0.0),
}
EXACT = DouglasRachford(max_steps=200, rtol=1e-4)
WIDTHS, STEPS, RECORDED = (64, 128, 64, 10), 90, (1, 5, 20, 30, 31, 35, 60, 90)
NORM = ramda_jax.NuclearNorm()


def method(name, solver=None):
    """The method with the strengths of the NeurIPS paper's low-rank experiment; RAMDA in two stages."""
    if name == "prox_adamw":
        return ramda_jax.prox_adamw(1e-3, NORM, 3.5e-3, solver=solver)
    settings = ramda_jax.stages(learning_rate=1e-2, averaging=0.1, ends=(STEPS // 3,))
    return ramda_jax.ramda(regularizer=NORM, strength=1e-3, solver=solver, **settings)


@dataclasses.dataclass(frozen=True)
class Recorder(DouglasRachford):
    """A solver that keeps the subproblems of the current trace."""

    subproblems: list = dataclasses.field(default_factory=list, compare=False)

    def solve(self, model, regularizer, context):
        self.subproblems.append(recording.Subproblem(model, context.start, context.step, regularizer, context.share))
        return super().solve(model, regularizer, context)


def train(name, solver, steps, widths, record_at=()):
    """(the last W_hat, accuracy on the held-out images, recorded subproblems)."""
    data = recording.Trainer("mlp", "ramda", steps)  # its images alone
    graph, params = nnx.split(MLP(widths, rngs=nnx.Rngs(0)))
    optimizer = method(name, solver)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(nnx.merge(graph, params)(images), labels).mean()

        found = solver.subproblems if isinstance(solver, Recorder) else []
        found.clear()
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state, list(found)

    order, recorded = np.random.default_rng(0), {}
    for number in range(1, steps + 1):
        batch = order.choice(len(data.images), 64, replace=False)
        params, state, subproblems = step(params, state, data.images[batch], data.labels[batch])
        if number in record_at:
            recorded[number] = subproblems
    point = ramda_jax.eval_params(state, params) if name == "ramda" else params
    predicted = jnp.argmax(nnx.merge(graph, point)(data.test_images), axis=-1)
    return point, float(np.mean(predicted == data.test_labels)), recorded


def distance(one, other):
    """`||one - other|| / ||other||` over all leaves."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    return float(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs) / sum(np.sum(b**2) for _, b in pairs)))


def golden(small):
    """The largest deviation from the papers' trajectories, by method and solver."""
    with jax.enable_x64(True):
        for name in ("ramda",) if small else ("ramda", "prox_adamw"):
            recorded = np.load(GOLDEN / f"{name.replace('_', '')}_nuclear.npz")
            for solver in list(SOLVERS)[:: 2 if small else 1]:
                optimizer = golden_optimizer(recorded, getattr(ramda_jax, name), "nuclear", SOLVERS[solver])
                yield {"method": name, "solver": solver, "deviation": largest_deviation(recorded, optimizer)}


def recorded(small):
    """The distances to the exact solutions of recorded subproblems, by method and solver."""
    widths, steps, at = ((64, 16, 10), 2, (1, 2)) if small else (WIDTHS, STEPS, RECORDED)
    for name in ("ramda", "prox_adamw"):
        *_, found = train(name, Recorder(max_steps=5, rtol=1e-3), steps, widths, at)
        with jax.enable_x64(True):
            wide = [jax.tree.map(lambda x: jnp.asarray(x, float), leaf) for leaves in found.values() for leaf in leaves]
            solve = jax.jit(recording.Subproblem.solve, static_argnums=1)
            exact = [solve(leaf, DouglasRachford(max_steps=2000, rtol=1e-8)).value for leaf in wide]
            for solver in SOLVERS:
                away = [distance(solve(leaf, SOLVERS[solver]).value, w) for leaf, w in zip(wide, exact, strict=True)]
                yield {
                    "method": name,
                    "solver": solver,
                    "subproblems": len(away),
                    "start": float(np.median([distance(leaf.start, w) for leaf, w in zip(wide, exact, strict=True)])),
                    "median": float(np.median(away)),
                    "largest": float(np.max(away)),
                }


def training(small):
    """Whole trainings by each solver."""
    widths, steps = ((64, 16, 10), 2) if small else (WIDTHS, STEPS)
    for name in ("ramda", "prox_adamw"):
        exact = None
        for solver in ("exact", f"{RELEASED}, 5", "default, 5"):
            point, accuracy, _ = train(name, EXACT if solver == "exact" else SOLVERS[solver], steps, widths)
            exact = point if exact is None else exact
            rank = 1 - float(ramda_jax.metrics.low_rank_level(NORM, point))
            away = distance(point, exact)
            yield {"method": name, "solver": solver, "distance": away, "accuracy": accuracy, "rank": rank}


def markdown(found):
    """The table of `docs/tuning.md`."""
    header = (
        "SVDs a step | method | papers' trajectory | subproblems, median (largest) | training: W_hat | rank | accuracy"
    )
    lines = [f"| {header} |", "|---" * 7 + "|"]
    for solver in SOLVERS:
        for name in ("ramda", "prox_adamw"):
            far, near, end = (
                next((row for row in found[study] if (row["method"], row["solver"]) == (name, solver)), {})
                for study in STUDIES
            )
            after = ["", "", ""]
            if end:
                after = [f"{end['distance']:.2g}", f"{100 * end['rank']:.0f} %", f"{100 * end['accuracy']:.0f} %"]
            first = [solver, name, f"{far['deviation']:.2g}", f"{near['median']:.2g} ({near['largest']:.2g})"]
            lines.append("| " + " | ".join(first + after) + " |")
    for row in found["training"]:
        if row["solver"] == "exact":
            end = [f"{100 * row['rank']:.0f} %", f"{100 * row['accuracy']:.0f} %"]
            lines.append("| " + " | ".join(["exact", row["method"], "0", "0", "0", *end]) + " |")
    return "\n".join(lines).replace("|  |", "| |").replace("|  |", "| |")


STUDIES = {"golden": golden, "recorded": recorded, "training": training}


def main(argv=None):
    """Measures, prints and writes; returns the rows by study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--small", action="store_true", help="only shows that it runs")
    parser.add_argument("--json", type=Path, help="studies that are there already are not run again")
    args = parser.parse_args(argv)
    found = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    for name in args.studies:
        if name not in found:
            found[name] = list(STUDIES[name](args.small))
        print(f"\n{name}\n" + tabulate(found[name], headers="keys", floatfmt=".2g"), flush=True)
        if args.json:
            args.json.write_text(json.dumps(found, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main()
