"""Measures the error of float32 sums against float64 sums over long stages.

    python -m benchmarks.long_stages [--steps N ...]

The gradients are normal about several means, and the learning rate is constant. The table has the sums of RAMDA, and
alpha as a plain sum for comparison. The default takes some 15 seconds of one core.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tabulate import tabulate

import ramda_jax

STEPS = (10**5, 10**6, 10**7)
# In units of the noise; there are several entries with each mean.
MEANS = (0.0, 0.1, 1.0, 10.0)
ENTRIES = 4
RATE = 0.1


def sums_after(num_steps):
    """The fields of RAMDA's state after a stage, in float32 and float64, and alpha as a plain float32 sum."""
    means = jnp.repeat(jnp.asarray(MEANS, jnp.float32), ENTRIES)
    builder = ramda_jax.adaptive_dual_averaging(RATE)

    def step(t, carry):
        narrow, wide, plain = carry
        # Both get the same float32 gradient.
        grads = means + jax.random.normal(jax.random.fold_in(key, t), means.shape, jnp.float32)
        narrow: Any
        _, narrow = builder.update(grads, narrow, means)
        _, wide = builder.update(grads.astype(jnp.float64), wide, means.astype(jnp.float64))
        return narrow, wide, plain + jnp.float32(RATE) * jnp.sqrt(narrow.stage_step.astype(jnp.float32))

    # This generator needs few operations; the default one would take most of the time.
    key = jax.random.key(0, impl="unsafe_rbg")
    start = (builder.init(means), builder.init(means.astype(jnp.float64)), jnp.zeros([], jnp.float32))
    return jax.jit(lambda start: jax.lax.fori_loop(0, num_steps, step, start))(start)


def row(num_steps):
    """Relative errors after a stage of that length."""
    with jax.enable_x64(True):
        narrow, wide, plain = jax.device_get(sums_after(num_steps))

    def error(mine, exact):
        return float(np.max(np.abs(mine.astype(np.float64) - exact) / np.abs(exact)))

    # V is a sum of terms of either sign, so its relative error is taken only where the mean is not 0.
    with_mean = np.repeat(np.array(MEANS) != 0, ENTRIES)
    return {
        "steps": f"{num_steps:,}",
        "alpha": error(narrow.step_size_sum, wide.step_size_sum),
        "alpha, plain sum": error(plain, wide.step_size_sum),
        "V": error(narrow.grad_sum[with_mean], wide.grad_sum[with_mean]),
        "U": error(narrow.grad_sq_sum, wide.grad_sq_sum),
        "cbrt(U)": error(np.cbrt(narrow.grad_sq_sum), np.cbrt(wide.grad_sq_sum)),
    }


def main(argv=None):
    """Prints the table."""
    parser = argparse.ArgumentParser(description="What float32 sums lose over one stage.")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    rows = [row(num_steps) for num_steps in parser.parse_args(argv).steps]
    print("largest relative errors of float32 sums over one stage")
    print(tabulate(rows, headers="keys", floatfmt=".1e"))


if __name__ == "__main__":
    main()
