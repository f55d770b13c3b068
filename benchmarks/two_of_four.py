"""The cost of 2:4 sparsity and other hard targets: steps of RAMDA on one matrix, compared with l1.

    python -m benchmarks.two_of_four [--side N] [--rounds N]

It works on any device that JAX finds.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tabulate import tabulate

import ramda_jax
from benchmarks.timing import alternate, ratios

REGULARIZERS = {
    "L1": ramda_jax.L1(),
    "NofM(2, 4)": ramda_jax.NofM(2, 4),
    "NofM(2, 4, axis=-1)": ramda_jax.NofM(2, 4, axis=-1),
    "TopGroups(0.5)": ramda_jax.TopGroups(0.5),
    "TopEntries(0.5)": ramda_jax.TopEntries(0.5),
    "GroupLasso()": ramda_jax.GroupLasso(),
}


class Step:
    """A call takes one step with the same gradient; parameters and state are donated."""

    def __init__(self, regularizer, params, gradient):
        optimizer = ramda_jax.ramda(1e-2, regularizer, strength=1e-3)
        self.params, self.state = jax.tree.map(jnp.copy, (params, optimizer.init(params)))
        self.gradient = gradient

        def step(params, state, gradient):
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        self.compiled = jax.jit(step, donate_argnums=(0, 1)).lower(self.params, self.state, gradient).compile()
        memory = self.compiled.memory_analysis()
        assert memory is not None
        self.temporaries = memory.temp_size_in_bytes / params["kernel"].nbytes

    def __call__(self):
        self.params, self.state = self.compiled(self.params, self.state, self.gradient)
        return self.params


def main(argv=None):
    """Reads the command line, measures, prints a table; returns the median ratios by name."""
    parser = argparse.ArgumentParser(description="What hard targets cost beside l1.")
    parser.add_argument("--side", type=int, default=4096, help="of the square matrix, a multiple of 4")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    params, gradient = ({"kernel": jnp.asarray(rng.normal(size=(args.side, args.side)), jnp.float32)} for _ in range(2))
    steps = {name: Step(regularizer, params, gradient) for name, regularizer in REGULARIZERS.items()}
    seconds = alternate(steps, args.rounds)
    rows, found = [], {}
    for name, values in ratios(seconds, "L1").items():
        found[name] = float(np.median(values))
        low, high = np.quantile(values, (0.25, 0.75))
        milliseconds, temporaries = 1e3 * np.median(seconds[name]), steps[name].temporaries
        rows.append(
            [name, f"{found[name]:.2f}", f"{low:.2f} - {high:.2f}", f"{milliseconds:.1f}", f"{temporaries:.2f}"]
        )
    print(f"{args.side} x {args.side}, float32, {jax.default_backend()}, {args.rounds} rounds")
    print(tabulate(rows, ["regularizer", "time / L1", "quartiles", "ms", "temporaries"], disable_numparse=True))
    return found


if __name__ == "__main__":
    main()
