"""The training loop: pure jitted steps over a `TrainState`, for any task."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ramda_jax
from examples import rigl
from examples.data.errors import DataError
from examples.training import measures
from examples.training.optimizers import make_optimizer, make_plan


class TrainState(NamedTuple):
    """The state of a training run, which a checkpoint holds.

    Attributes:
        params, rest: the model's parameters and its other state (batch statistics), as pure dicts.
        opt_state: the optimizer's state.
        carry: the value that a batch passes to the next (a memory).
        structure: the structures of W and of W_hat at the end of the last round.
        loss_sum: the sum of the losses of the round's steps so far.
        changed: the number of groups of W that became zero or nonzero, for each step of the round.
        last_change: the last step with such a change, 1-based; 0 for none.
    """

    params: Any
    rest: Any
    opt_state: Any
    carry: Any
    structure: Any
    loss_sum: jax.Array
    changed: jax.Array
    last_change: jax.Array


class Trainer:
    """A method on an experiment: makes the state, takes steps and measures.

    Randomness depends on (seed, step) alone, so that a continued run is the same as one without interruption.
    """

    def __init__(
        self,
        config,
        method,
        data_dir=None,
        *,
        scale=1.0,
        batch_size=None,
        learning_rate_scale=1.0,
        devices=1,
        dtype=None,
        seed=1,
    ):
        config = config.with_method(method, learning_rate=learning_rate_scale * config.methods[method].learning_rate)
        self.config, self.method, self.seed, self.task = config, method, seed, config.task_of(method)
        self.batch_size = batch_size or config.batch_size
        self.data = self.task.load(data_dir, self.batch_size, seed)
        self.plan = make_plan(config, config.methods[method], self.data.steps_per_epoch, scale)
        self.key = jax.random.key(seed)
        self.truth = getattr(self.data, "truth", None)

        model = self.task.make_model(self.data, nnx.Rngs(seed), dtype or jnp.float32)
        self._empty_carry = self.task.start_carry(model, self.batch_size)
        self._graphs = {}
        for train in (False, True):
            (model.train if train else model.eval)()
            self._graphs[train], params, rest = nnx.split(model, nnx.Param, ...)
        self._params, self._rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
        self.optimizer = make_optimizer(method, config, self.plan, self._params)

        self._mesh = None
        if devices > 1:
            self._mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
        self.resident = self._whole(jax.tree.map(jnp.asarray, self.data.resident))
        # A low-rank structure is only measured at the end of a round, because it takes an SVD of every matrix.
        self._counts_steps = not measures.is_low_rank(config.regularizer)
        # Jitted, this is one program instead of several for each leaf.
        self._start = jax.jit(self._start_state)
        self._step = jax.jit(self._take_step, donate_argnums=0)
        self._scan = jax.jit(self._take_steps, donate_argnums=0)
        self._score = jax.jit(self._score_batch)
        self._measure = jax.jit(self._measure_state)

    # Sharding: every device has all parameters and the whole state, and batches are split.

    def _whole(self, tree):
        return tree if self._mesh is None else jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def _split(self, tree):
        if self._mesh is None:
            return tree
        devices = self._mesh.size
        for leaf in jax.tree.leaves(tree):
            if len(leaf) % devices:
                raise DataError(
                    f"A batch must split evenly over the devices, but {len(leaf)} examples do not over {devices} "
                    "(the last batch of an epoch may be smaller); use another --devices or --batch-size."
                )
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec("data")))

    # State.

    def init(self) -> TrainState:
        """The state before the first step."""
        return self._whole(self._start(self._params, self._rest, self._empty_carry))

    def _start_state(self, params, rest, carry):
        # Copies, because a step donates the buffers of its state, and the next start needs these again.
        params, rest, carry = jax.tree.map(jnp.copy, (params, rest, carry))
        opt_state = self.optimizer.init(params)
        if self.method == "rigl":
            for state in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, rigl.RigLState)):
                if isinstance(state, rigl.RigLState):
                    params = rigl.start(params, state)
        return TrainState(
            params,
            rest,
            opt_state,
            carry,
            {which: measures.structure(self.config.regularizer, params) for which in ("W", "W_hat")},
            jnp.zeros([]),
            jnp.zeros([], jnp.int32),
            jnp.zeros([], jnp.int32),
        )

    def _model(self, params, rest, train):
        return nnx.merge(self._graphs[train], params, rest)

    # Steps.

    def _take_step(self, state, resident, item, number):
        batch = self.data.fetch(resident, item)
        key = jax.random.fold_in(self.key, number)

        def loss_fn(params):
            model = self._model(params, state.rest, True)
            loss, carry = self.task.loss(model, batch, state.carry, key)
            return loss, (nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))), carry)

        (loss, (rest, carry)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), state.params, updates)
        changed, last_change = state.changed, state.last_change
        if self._counts_steps:
            regularizer = self.config.regularizer
            now = measures.changes(*(measures.structure(regularizer, tree) for tree in (state.params, params)))
            changed, last_change = changed + now, jnp.where(now > 0, number + 1, last_change)
        new = TrainState(params, rest, opt_state, carry, state.structure, state.loss_sum + loss, changed, last_change)
        if self._mesh is not None:
            split, whole = (NamedSharding(self._mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
            constrained = jax.lax.with_sharding_constraint(new._replace(carry=()), whole)
            new = constrained._replace(carry=jax.lax.with_sharding_constraint(carry, split))
        return new, loss

    def _take_steps(self, state, resident, items, numbers):
        def step(state, xs):
            return self._take_step(state, resident, *xs)[0], None

        return jax.lax.scan(step, state, (items, numbers))[0]

    def run_round(self, state, first, last, should_stop, on_step=lambda number, loss: None):
        """Takes the steps first, ..., last - 1 (0-based, none of them across a round's end).

        Args:
            state: the state, which is donated.
            should_stop: a function that is called between steps.
            on_step: a function of the number of steps taken and the loss; the loss is None if it is not known.

        Returns:
            (state, the number of steps taken in all).
        """
        number = first
        while number < last:
            epoch, start = divmod(number, self.data.steps_per_epoch)
            if start == 0:
                carry = self._whole(self._empty_carry) if self._mesh is None else self._split(self._empty_carry)
                state = state._replace(carry=jax.tree.map(jnp.copy, carry))
            end = min(last, (epoch + 1) * self.data.steps_per_epoch)
            batches = self.data.batches(self.seed, epoch, start)
            if self.config.scan:
                items = [item for _, item in zip(range(end - number), batches, strict=False)]
                full = [item for item in items if len(item) == self.batch_size]
                if full:
                    numbers = np.arange(number, number + len(full), dtype=np.int32)
                    stacked = np.stack(full)
                    if self._mesh is not None:
                        stacked = jax.device_put(stacked, NamedSharding(self._mesh, PartitionSpec(None, "data")))
                    state = self._scan(state, self.resident, stacked, numbers)
                    number += len(full)
                    on_step(number, None)
                batches = iter(items[len(full) :])
            for item in batches:
                if number == end:
                    break
                state, loss = self._step(state, self.resident, self._split(item), np.int32(number))
                if self._mesh is not None and jax.default_backend() == "cpu":
                    jax.block_until_ready(loss)  # queued steps can block the few threads of simulated devices
                number += 1
                on_step(number, loss)
                if should_stop():
                    return state, number
            if should_stop():
                break
        return state, number

    # Evaluation.

    def _score_batch(self, params, rest, batch, carry, key):
        return self.task.score(self._model(params, rest, False), batch, carry, key)

    def _measure_state(self, state):
        regularizer, params = self.config.regularizer, state.params
        structured = measures.structured_point(self.method, state.opt_state, params)
        structure = {"W": measures.structure(regularizer, params), "W_hat": measures.structure(regularizer, structured)}
        found = {
            "W": measures.sparsities(regularizer, params),
            "W_hat": measures.sparsities(regularizer, structured),
            "changed_W": measures.changes(state.structure["W"], structure["W"]),
            "changed_hat": measures.changes(state.structure["W_hat"], structure["W_hat"]),
        }
        if self.truth is not None:
            found["identified"] = {
                "W": measures.identified(regularizer, params, self.truth),
                "W_hat": measures.identified(regularizer, structured, self.truth),
            }
        return found, structure

    def evaluate(self, state, batches=None):
        """(measurements at the end of a round, on `batches` validation batches; the state that begins the next)."""
        total, count, carry = 0.0, 0.0, None
        for number, batch in enumerate(itertools.islice(self.data.valid_batches(), batches)):
            if carry is None:
                model = self._model(state.params, state.rest, False)
                carry = self.task.start_carry(model, len(jax.tree.leaves(batch)[0]))
            key = jax.random.fold_in(jax.random.fold_in(self.key, 2**31 - 1), number)
            score, carry = self._score(state.params, state.rest, batch, carry, key)
            total, count = total + float(score.total), count + float(score.number)
        found, structure = self._measure(state)
        record = {self.task.metric: float(self.task.final(total / count))}
        record |= jax.tree.map(lambda x: x.item(), jax.device_get(found))
        if self._counts_steps:
            record["changed_W"] = int(state.changed)
        record["last_change_step"] = int(state.last_change)
        fresh = state._replace(
            structure=structure, loss_sum=jnp.zeros_like(state.loss_sum), changed=jnp.zeros_like(state.changed)
        )
        return record, fresh

    def objective(self, state):
        """The mean training loss plus strength times psi, at W: for data in memory, or None."""
        if not getattr(self.data, "in_memory", False) or self.data.resident.labels is None:
            return None
        total = 0.0
        loss = jax.jit(
            lambda p, r, batch: self.task.loss(self._model(p, r, False), batch, (), self.key, train=False)[0]
        )
        for first in range(0, self.data.count, 1000):
            batch = jax.tree.map(lambda x, first=first: x[first : first + 1000], self.data.resident)
            total += float(loss(state.params, state.rest, batch)) * len(batch.images)
        strength = self.config.methods[self.method].strength
        mean = total / self.data.count
        return float(ramda_jax.metrics.objective(self.config.regularizer, state.params, mean, strength))
