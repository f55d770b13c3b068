"""Times as ratios: functions measured alternately in one process, so that whatever else runs slows all of them."""

import time

import jax
import numpy as np


def alternate(functions, rounds):
    """Runs each function once per round, the next round starting with another one.

    Args:
        functions: from names to functions without arguments, which return arrays.
        rounds: measured ones; one more goes before as a warm-up, in which everything is compiled.

    Returns:
        From names to seconds, one number per round.
    """
    names = list(functions)
    seconds = {name: np.zeros(rounds) for name in names}
    for function in functions.values():
        jax.block_until_ready(function())
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            jax.block_until_ready(functions[name]())
            seconds[name][i] = time.perf_counter() - start
    return seconds


def ratios(seconds, peer):
    """What `alternate` returns, each round relative to the peer's time in the same round."""
    return {name: values / seconds[peer] for name, values in seconds.items()}
