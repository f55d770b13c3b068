"""Makes an Optax optimizer from a method's settings, with all stages scaled alike."""

import dataclasses
import itertools

import jax
import optax

import ramda_jax
from examples import rigl
from examples.experiments.config import AVERAGED, DENSE, Config, Method
from ramda_jax.structure import regularized_leaves

FACTOR = 0.1
RIGL_STEPS = 391_000  # RigL's settings are for 1000 epochs of 391 steps


@dataclasses.dataclass(frozen=True)
class Plan:
    """The length of a run in steps.

    Attributes:
        total: the number of all steps.
        ends: the steps after which a stage of this method ends.
        per_round: the number of steps from one evaluation to the next; the last round may be shorter.
    """

    total: int
    ends: tuple[int, ...]
    per_round: int

    @property
    def rounds(self):
        return -(-self.total // self.per_round)


def make_plan(config: Config, method: Method, steps_per_epoch: int, scale: float) -> Plan:
    """Scales all stages alike, to at least one step each."""
    if not scale > 0:
        raise ValueError(f"`scale` must be above 0, got {scale!r}; use 1 for the paper's length.")
    unit = steps_per_epoch if config.unit == "epoch" else 1
    milestones = config.milestones if method.milestones is None else method.milestones
    lengths = [b - a for a, b in itertools.pairwise((0, *milestones, config.length))]
    steps = list(itertools.accumulate(max(1, round(length * unit * scale)) for length in lengths))
    return Plan(steps[-1], tuple(steps[:-1]), config.evaluate_every * unit)


def learning_rate(method: Method, plan: Plan):
    """The learning rate's schedule."""
    if method.schedule == "cosine":
        return optax.cosine_decay_schedule(method.learning_rate, plan.total)
    if method.schedule == "linear":
        return optax.linear_schedule(method.learning_rate, 0.0, plan.total)
    if method.schedule == "rigl":
        # Of 391,000 steps, 1,760 are warm-up. Then the rate is divided by 5 every 20,000 steps.
        scaled = plan.total / RIGL_STEPS
        warm_up = max(1, round(1760 * scaled))
        falls = {round(step * scaled): 0.2 for step in range(20_000, RIGL_STEPS, 20_000) if round(step * scaled) > 0}
        falling = optax.piecewise_constant_schedule(method.learning_rate, falls)

        def schedule(step):
            return falling(step) * jax.numpy.minimum(1.0, (step + 1) / warm_up)

        return schedule
    return optax.piecewise_constant_schedule(method.learning_rate, dict.fromkeys(plan.ends, FACTOR))


def make_optimizer(name: str, config: Config, plan: Plan, params) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a method of an experiment. Gradients are clipped before it, so that it is the last."""
    method = config.methods[name]
    optimizer = _make(name, method, config, plan, params)
    if config.clip is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip), optimizer)
    return optax.with_extra_args_support(optimizer)


def _make(name, method, config, plan, params):
    rate = learning_rate(method, plan)
    penalty = {"regularizer": config.regularizer, "strength": method.strength}
    solver = {} if method.solver is None else {"solver": method.solver}
    if name in AVERAGED:
        averaging = method.averaging
        if method.growth == "stage":
            averaging = ramda_jax.stage_growth(averaging, plan.ends)
        eps = 1e-6 if name == "ramda" else None
        settings = ramda_jax.stages(method.learning_rate, averaging, plan.ends, FACTOR, eps)
        return getattr(ramda_jax, name)(**penalty, **settings, **solver)
    if name not in DENSE and name != "rigl":
        return getattr(ramda_jax, name)(rate, **penalty, **solver)
    if name == "adamw":
        return optax.adamw(rate, weight_decay=method.weight_decay)
    decay = optax.add_decayed_weights(method.weight_decay)
    if name == "adam":
        return optax.chain(decay, optax.adam(rate))
    sgd = optax.chain(decay, optax.sgd(rate, momentum=0.9, nesterov=name == "rigl"))
    if name == "msgd":
        return sgd
    scaled = plan.total / RIGL_STEPS
    pruned = [path for path, _, _ in regularized_leaves(config.regularizer, params)]
    every, until = max(1, round(100 * scaled)), max(2, round(65_918 * scaled))
    return rigl.rigl(sgd, pruned, every=every if plan.total < RIGL_STEPS else 100, until=until)
