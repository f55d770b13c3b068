"""Training as loops over batches, compiled once for all seeds, sizes, learning rates and numbers of steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax
from benchmarks.alternatives.groups import Groups


class Lab:
    """A problem and its groups, with a cache of programs and results.

    Attributes:
        problem: the problem.
        groups: the groups of its net.
    """

    def __init__(self, problem):
        self.problem, self.groups = problem, Groups(problem)
        self._programs, self._found = {}, {}

    def start(self, seed):
        """The initial parameters of a seed, and its batches."""
        return self.problem.initial(jax.random.key(seed)), self.problem.order(seed)

    def once(self, name, find):
        """The result of `find`, computed once for a name, so that sizes share the training that they have in common."""
        if name not in self._found:
            self._found[name] = find()
        return self._found[name]

    def found_by(self, name, make, params, batches, stop, numbers, extra=None, view=None):
        """The structured point after the first `stop` batches; with `extra` the parameters.

        Args:
            name: identifies everything that `make`, `extra` and `view` depend on, except `numbers`.
            make: a function from the traced numbers to the optimizer.
            params, batches: the initial parameters and all batches.
            stop: the number of steps.
            numbers: the numbers that differ between runs.
            extra: a function from `numbers` and the trained parameters to a term of the loss.
            view: a function from the trained parameters to the net's parameters.
        """

        def run(params, data, batches, stop, numbers):
            optimizer = make(*numbers)
            added = None if extra is None else functools.partial(extra, numbers)
            step = _step(self.problem, optimizer, data, batches, added, view)
            params, state = jax.lax.fori_loop(0, stop, step, (params, optimizer.init(params)))
            # Compute it inside the program, because the state's regularizers may hold traced numbers.
            return ramda_jax.eval_params(state, params) if extra is None else params

        program = self._programs.setdefault(name, jax.jit(run))
        return program(params, self.problem.data["train"], batches, stop, tuple(map(np.float32, numbers)))

    def adam(self, params, batches, first, stop, rate, alive=None, cosine=False, state=None):
        """The parameters and Adam's state after the batches from `first` to `stop`.

        Args:
            params, batches: the initial parameters and all batches.
            first, stop: the range of steps.
            rate: the learning rate; with `cosine` it decreases to 0.
            alive: masks of the groups that are trained; the others are zero.
            cosine: whether the rate decreases.
            state: Adam's state; None for a fresh state.
        """

        def run(params, state, mask, data, batches, first, stop, rate, length):
            optimizer = _adam(rate, length)

            def masked_update(updates, state, params=None):
                updates, state = optimizer.update(updates, state, params)
                return jax.tree.map(jnp.multiply, updates, mask), state

            masked = optax.GradientTransformation(optimizer.init, masked_update)
            step = _step(self.problem, masked, data, batches)
            return jax.lax.fori_loop(first, stop, step, (params, state))

        mask = jax.tree.map(jnp.ones_like, params)
        if alive is not None:
            params, mask = self.groups.held(params, alive), self.groups.held(mask, alive)
        program = self._programs.setdefault("adam", jax.jit(run))
        state = _adam(1.0, 1.0).init(params) if state is None else state
        length = np.float32(stop - first if cosine else np.inf)
        return program(params, state, mask, self.problem.data["train"], batches, first, stop, np.float32(rate), length)


def _adam(rate, length):
    return optax.adam(lambda step: rate * 0.5 * (1 + jnp.cos(jnp.pi * step / length)))


def _step(problem, optimizer, data, batches, extra=None, view=None):
    def loss(params, inputs, labels):
        value = problem.loss(params if view is None else view(params), inputs, labels)
        return value if extra is None else value + extra(params)

    def step(number, carry):
        params, state = carry
        grads = jax.grad(loss)(params, *problem.batch(data, batches[number]))
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step
