"""Times as ratios: functions are measured alternately in one process, so that other load slows all of them."""

import time

import jax
import numpy as np


def alternate(functions, rounds):
    """Runs each function once per round, the next round starting with another one.

    Args:
        functions: a dict from names to functions without arguments, which return arrays.
        rounds: the number of measured rounds. A warm-up round before them compiles everything.

    Returns:
        A dict from names to seconds, one number per round.
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
    """The result of `alternate`, with each round relative to the peer's time in the same round."""
    return {name: values / seconds[peer] for name, values in seconds.items()}
