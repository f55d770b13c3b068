"""Fuzzing with numbered inputs: each input works, is refused with an error that names a remedy, or is a fault.

    python -m tests.fuzz --inputs 100000             # a table with a line for each stage
    python -m tests.fuzz --seed 0 --only 4711        # one input again, with its outcome

The number and the seed determine an input. Faults are printed with their numbers and make the exit status 1.
"""

import argparse
import collections
import concurrent.futures
import multiprocessing
import sys
import time

from tests.fuzz.judge import outcome
from tests.fuzz.stages import STAGES

OUTCOMES = ("worked", "refused, TypeError", "refused, ValueError", "refused, CompactionError", "fault")
CHUNK = 200


def run(seed, numbers, stage):
    """Runs inputs; returns counts by (stage, outcome), seconds by stage, and faults as (number, stage, text)."""
    counts, seconds, faults = collections.Counter(), collections.Counter(), []
    for number in numbers:
        start = time.perf_counter()
        name, found, text = outcome(seed, number, stage)
        seconds[name] += time.perf_counter() - start
        counts[name, found] += 1
        if found == "fault":
            faults.append((number, name, text))
    return counts, seconds, faults


def table(counts, seconds):
    """The figures as a Markdown table."""
    rows = [("stage", "inputs", *OUTCOMES, "ms each")]
    for name in [*(stage.__name__ for stage in STAGES), "all"]:
        found = [
            sum(n for (stage, one), n in counts.items() if name in (stage, "all") and one == of) for of in OUTCOMES
        ]
        taken = sum(seconds.values()) if name == "all" else seconds[name]
        rows.append((name, str(sum(found)), *map(str, found), f"{1000 * taken / max(sum(found), 1):.1f}"))
    rows.insert(1, ("---",) * len(rows[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(argv=None):
    """Reads the command line, runs the inputs and prints their outcomes."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzzes the library.")
    parser.add_argument("--inputs", type=int, default=1000, help="the number of inputs (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of all inputs (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="the number of processes (default: 1)")
    parser.add_argument("--stage", choices=[stage.__name__ for stage in STAGES], help="only the inputs of one stage")
    parser.add_argument("--only", type=int, help="run one input again, by its number")
    args = parser.parse_args(argv)
    if args.only is not None:
        print(*outcome(args.seed, args.only), sep="\n")
        return 0
    start = time.perf_counter()
    counts, seconds, faults = collections.Counter(), collections.Counter(), []
    chunks = [range(first, min(first + CHUNK, args.inputs)) for first in range(0, args.inputs, CHUNK)]
    # Spawn processes, because a fork would lose JAX's threads.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(args.jobs, context) if args.jobs > 1 else Here() as pool:
        for more, longer, others in pool.map(run, [args.seed] * len(chunks), chunks, [args.stage] * len(chunks)):
            counts, seconds, faults = counts + more, seconds + longer, faults + others
            for number, name, text in others:
                print(f"fault: --seed {args.seed} --only {number} ({name}): {text}", flush=True)
    print(table(counts, seconds))
    print(f"{len(faults)} faults; seed {args.seed}, {time.perf_counter() - start:.0f} s, {args.jobs} process(es)")
    return 1 if faults else 0


class Here:
    """Stands in for a pool of processes, and runs its work in this process."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    map = staticmethod(map)


if __name__ == "__main__":
    sys.exit(main())
