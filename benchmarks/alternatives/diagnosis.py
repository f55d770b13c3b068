"""Shows why RAMDA with held zeros is better or worse than gradual pruning, on random splits of the digits' other
images.

    python -m benchmarks.alternatives.diagnosis            # 12 splits
    python -m benchmarks.alternatives.diagnosis --small    # only show that it runs
    python -m benchmarks.alternatives.diagnosis --first 200 --splits 24 --variants "RAMDA, zeros held"    # on others

It does not use the test images of `python -m benchmarks.alternatives`. For each seed it divides the images for training
and tuning in another way. So a choice from this table is a choice on validation images.
"""

import argparse

import numpy as np
from tabulate import tabulate

import ramda_jax
from benchmarks.alternatives.methods import METHODS, TIMES, Choice, rising_target, staged_ramda
from benchmarks.alternatives.problems import digits
from benchmarks.alternatives.training import Lab
from ramda_jax.phases.ramda_then_hold import FACTOR, RISE, late_ends

RATE, SPLIT, KEEPS = 6e-3, 0.5, (0.3, 0.07)
FIRST_SEED = 100
gradual, recipe = METHODS["gradual, by layer"].find, METHODS["RAMDA, zeros held"].find


def ramda(name, ends=None, factor=FACTOR, rise=RISE, speed=1.0, regularizer=None, warm=0.0):
    """The first phase with other settings: `ends` and a start with Adam, `warm`, as shares, `speed` times the rate."""

    def find(lab, keep, choice, seed, num_steps):
        groups, (params, batches) = lab.groups, lab.start(seed)
        before = round(warm * num_steps)
        if before:
            params, _ = lab.adam(params, batches, 0, before, choice.rate)
        length = num_steps - before

        def make(rate, keep):
            at = late_ends(length) if ends is None else tuple(round(end * length) for end in ends)
            psi = groups.regularizer if regularizer is None else groups.coupling.regularizer(regularizer)
            target = rising_target(groups, keep, length, rise)
            return groups.coupling.wrap(staged_ramda(speed * rate, psi, target, length, ends=at, factor=factor))

        numbers = lab.problem.ratio * choice.rate, keep
        params = lab.found_by((name, num_steps), make, params, batches[before:], length, numbers)
        return params, groups.trimmed(params, keep)

    return find


def adam_in_the_groups(lab, keep, choice, seed, num_steps):
    """The groups that RAMDA keeps, with the weights of Adam on the whole net."""
    _, alive = recipe(lab, keep, choice, seed, num_steps)
    return lab.adam(*lab.start(seed), 0, num_steps, choice.rate)[0], alive


def gradual_to_the_widths(lab, keep, choice, seed, num_steps):
    """Gradual pruning by layer to the widths that RAMDA finds."""
    wanted = {name: int(one.sum()) for name, one in recipe(lab, keep, choice, seed, num_steps)[1].items()}
    params, batches = lab.start(seed)
    state = alive = None
    for part in range(TIMES):
        first, stop = part * num_steps // TIMES, (part + 1) * num_steps // TIMES
        params, state = lab.adam(params, batches, first, stop, choice.rate, alive, state=state)
        rest = (1 - (part + 1) / TIMES) ** 3
        alive = {}
        for name, one in lab.groups.by_size(params).items():
            alive[name] = np.argsort(np.argsort(-one)) < round(wanted[name] + (len(one) - wanted[name]) * rest)
    return params, alive


VARIANTS = {
    "gradual, by layer": gradual,
    "RAMDA, zeros held": recipe,
    "gradual, to RAMDA's widths": gradual_to_the_widths,
    "RAMDA's groups, Adam's weights": adam_in_the_groups,
    "stages end earlier, the share rises sooner": ramda("earlier", (0.5, 0.65, 0.8), 0.1, 0.3),
    "GroupMCP, half of RAMDA's rate": ramda("mcp", speed=0.5, regularizer=ramda_jax.GroupMCP(0, gamma=0.002)),
    "Adam for the first fifth": ramda("warm", warm=0.2),
}


def main(argv=None):
    """Prints the accuracy for each variant and size, and its difference from gradual pruning on the same splits."""
    parser = argparse.ArgumentParser(description="Why RAMDA is better or worse than gradual pruning.")
    parser.add_argument("--splits", type=int, default=12)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first split; the others follow")
    parser.add_argument("--keeps", nargs="+", type=float, default=KEEPS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME", help="rows")
    parser.add_argument("--small", action="store_true", help="tiny runs that only show that it works")
    args = parser.parse_args(argv)
    lab = Lab(digits(small=args.small))
    whole, steps, rows = lab.problem, round(SPLIT * lab.problem.num_steps), []
    first: dict[float, np.ndarray] = {}
    # The first variant is what the others are compared with.
    for name in dict.fromkeys([next(iter(VARIANTS)), *args.variants]):
        find, cells = VARIANTS[name], []
        for keep in args.keeps:
            scores, widths = [], []
            for seed in range(args.first, args.first + args.splits):
                lab.problem = whole.divided(seed)
                params, alive = find(lab, keep, Choice(RATE, SPLIT), seed, steps)
                batches = lab.start(seed)[1]
                params, _ = lab.adam(params, batches, steps, len(batches), RATE, alive, cosine=True)
                scores.append(lab.problem.score(lab.groups.held(params, alive), "val"))
                widths.append([int(one.sum()) for one in alive.values()])
            gain = np.asarray(scores) - first.setdefault(keep, np.asarray(scores))
            error = np.std(gain) / max(len(gain) - 1, 1) ** 0.5
            shown = " ".join(f"{width:.0f}" for width in np.mean(widths, 0))
            cells.append(f"{np.mean(scores):.2f} ({gain.mean():+.2f} ± {error:.2f}), {shown}")
        rows.append([name, *cells])
        print("  ".join(rows[-1]), flush=True)
    found = tabulate(
        rows, headers=["accuracy (gain ± standard error), widths", *map(str, args.keeps)], tablefmt="github"
    )
    print(found)
    return found


if __name__ == "__main__":
    main()
