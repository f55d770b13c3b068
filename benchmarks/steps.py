"""Optimizer steps compiled, run and compared with those of `optax.adamw`."""

import contextlib
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax
from benchmarks.optimizers import make
from benchmarks.timing import alternate, ratios
from benchmarks.trees import number_of_parameters

WARM_UP, ROUNDS = 30, 20
# The regularizers' strength in units of the gradients' size. With it RAMDA on the ResNet50 has zero and nonzero groups.
STRENGTH = 1 / 6


@contextlib.contextmanager
def no_compilation_cache():
    """A context in which programs are compiled, and not read from a cache on the disk."""
    option = "jax_enable_compilation_cache"
    enabled = getattr(jax.config, option)
    jax.config.update(option, False)
    try:
        yield
    finally:
        jax.config.update(option, enabled)


def iterations(state):
    """The largest number of iterations of any leaf's solver in the last step; None for other optimizers."""
    try:
        return ramda_jax.solver_info(state).num_steps
    except ValueError:
        return None


class Step:
    """A call takes one step with its own parameters and state, and the next of the gradients in turn.

    Attributes:
        params, state: the current parameters and state.
        iterations: one number per step; empty for other optimizers.
        compile_seconds: the processor time of tracing and compiling, which other load does not change much.
        temporaries, peak: bytes / bytes of the parameters, by XLA's memory analysis: the allocations in addition to
            inputs and outputs, and all allocations with donated buffers counted once.
        fusions, loops: their numbers in the compiled program, with those inside loops and branches.
    """

    def __init__(self, optimizer, tree):
        # Copy, because these are donated and the state's first values may be the parameters themselves.
        self.params = jax.tree.map(jnp.copy, tree.params)
        self.state = jax.tree.map(jnp.copy, optimizer.init(tree.params))
        self.gradients = itertools.cycle(tree.gradients)
        self._iterations = []

        def step(params, state, gradient):
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state, iterations(state)

        with no_compilation_cache():
            start = time.process_time()
            lowered = jax.jit(step, donate_argnums=(0, 1)).lower(self.params, self.state, tree.gradients[0])
            self.compiled = lowered.compile()
            self.compile_seconds = time.process_time() - start
        memory, program = self.compiled.memory_analysis(), self.compiled.as_text()
        assert memory is not None and program is not None
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self.params))
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        self.temporaries = memory.temp_size_in_bytes / size
        self.peak = (held + memory.temp_size_in_bytes) / size
        self.fusions, self.loops = program.count(" fusion("), program.count(" while(")

    def __call__(self):
        self.params, self.state, count = self.compiled(self.params, self.state, next(self.gradients))
        if count is not None:
            self._iterations.append(count)
        return self.params, self.state

    @property
    def iterations(self):
        return [int(count) for count in self._iterations]

    def warm_up(self, steps, seconds):
        """Takes at most `steps` steps, none after `seconds`; returns their number and the seconds of the last."""
        begin, last, done = time.perf_counter(), 0.0, 0
        while done < steps and (done == 0 or time.perf_counter() - begin < seconds):
            start = time.perf_counter()
            jax.block_until_ready(self())
            last = time.perf_counter() - start
            done += 1
        return done, last


def labels(tree, dtype, method, regularizer, params):
    """The fields of a row that say what was measured."""
    return {
        "tree": tree,
        "dtype": dtype,
        "device": jax.default_backend(),
        "method": method,
        "regularizer": regularizer,
        "parameters": number_of_parameters(params),
        "leaves": len(jax.tree.leaves(params)),
    }


def measured(name, tree, dtype, pairs, seconds, warm_up, rounds):
    """Yields a row of the JSON file, and the `Step` that it is of, for each (method, regularizer) on a tree."""
    peer = Step(make("adamw"), tree)
    peer.warm_up(warm_up, seconds)
    for method, regularizer in pairs:
        step = Step(make(method, regularizer, STRENGTH * tree.size), tree)
        values = compare(peer, step, seconds, warm_up, rounds)
        yield labels(name, dtype, method, regularizer, tree.params) | values, step


def compare(peer, step, seconds=60.0, warm_up=WARM_UP, rounds=ROUNDS):
    """Times a `Step` alternately with a warm peer; returns the fields of a row of the JSON file.

    There are 20 rounds, or fewer (at least 3) if they would take longer than `seconds`. The same holds for the warm-up.
    """
    warm_up, last = step.warm_up(warm_up, seconds)
    rounds = int(np.clip(seconds / max(last, 1e-9), min(3, rounds), rounds))
    times = alternate({"peer": peer, "step": step}, rounds)
    quarter, median, three_quarters = np.quantile(ratios(times, "peer")["step"], (0.25, 0.5, 0.75))
    counts = step.iterations[-rounds:]
    return {
        "ratio": float(median),
        "ratio_quartiles": [float(quarter), float(three_quarters)],
        "warm_up": warm_up,
        "rounds": rounds,
        "seconds": float(np.median(times["step"])),
        "peer_seconds": float(np.median(times["peer"])),
        "temporaries": step.temporaries,
        "peak": step.peak,
        "compile_seconds": step.compile_seconds,
        "compile_ratio": step.compile_seconds / peer.compile_seconds,
        "fusions": step.fusions,
        "loops": step.loops,
        "iterations": float(np.mean(counts)) if counts else 0.0,
        "most_iterations": max(counts, default=0),
    }
