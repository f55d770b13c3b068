"""The stages of the fuzzing: each makes one input of some kind from a `Draw` and passes it to the library.

A stage returns if the library did what it should, and does not catch the library's errors. No stage compiles a program
for its input: it traces with shapes alone, or uses arrays of a few fixed shapes.
"""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax
from ramda_jax import compaction, metrics
from ramda_jax.compaction import LeafPlan, Plan, WidthPlan
from tests.compaction import hostile
from tests.factories import FACTORIES
from tests.fuzz.draw import BAD_STRENGTHS, COUNTS, NUMBERS, OTHERS, STRENGTHS, shapes_of


def same_shapes(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        # Wrappers may turn the state's boolean (whether all converged) into a number.
        assert a.shape == b.shape and (a.dtype == b.dtype or a.dtype == bool), (a, b)


def parts(draw):
    """Regularizers, solvers, schedules and the parts of chains, with any settings."""
    kind = draw.numbers.randrange(9)
    if kind <= 2:
        draw.regularizer()
    elif kind == 3:
        draw.solver()
    elif kind == 4:
        schedule = ramda_jax.sqrt_growth(draw.one(NUMBERS), draw.one(COUNTS))
        assert 0 <= float(schedule(np.int32(draw.one((0, 1, 2**31 - 1))))) <= 1
    elif kind == 5:
        ramda_jax.stage_growth(draw.one(NUMBERS), draw.restarts(), draw.one((2.0, *NUMBERS)))
    elif kind == 6:
        ramda_jax.summable_tolerance(draw.one(NUMBERS), draw.one((0.75, *NUMBERS)))
    elif kind == 7:
        ramda_jax.iterate_averaging(
            draw.one(NUMBERS), draw.one((None, "float32", jnp.bfloat16, int, "f", 3, jnp.ones(2)))
        )
    else:
        ramda_jax.default_solver(
            draw.one((ramda_jax.L1(), ramda_jax.NuclearNorm(), *OTHERS)), draw.one(("scalar", "diagonal", "x", None))
        )


def factories(draw):
    """A method with any settings; accepted numbers are finite and not negative."""
    factory = draw.one(FACTORIES)
    pools = {"learning_rate": NUMBERS, "strength": (*NUMBERS, *STRENGTHS, *BAD_STRENGTHS)}
    pools |= {"averaging": NUMBERS} if factory.averages else {}
    pools |= {"eps": NUMBERS} if factory.name in ("ramda", "prox_adamw", "prox_ssi") else {}
    pools |= {"b1": NUMBERS, "b2": NUMBERS, "weight_decay": NUMBERS} if factory.name == "prox_adamw" else {}
    makers = {"regularizer": draw.spec, "solver": draw.solver_spec} | (
        {"restarts": draw.restarts} if factory.averages else {}
    )
    values = {"learning_rate": 0.1, "strength": 0.1}
    for name in draw.numbers.sample(sorted([*pools, *makers]), draw.one((1, 1, 2, 3))):
        values[name] = makers[name]() if name in makers else draw.one(pools[name])
    factory.make(**values)
    for name in ("learning_rate", "strength"):
        if isinstance(values[name], (int, float)):
            assert 0 <= values[name] < float("inf")


def init(draw):
    """`init` on any tree."""
    optimizer = draw.method(draw.spec(), draw.one(STRENGTHS), solver=draw.one((None, None, draw.solver_spec())))
    shapes_of(optimizer.init, draw.any_params())


def taken(draw):
    """(regularizer, parameters, optimizer, state's shapes) that fit together."""
    found = draw.taken()
    return found or (None, {}, ramda_jax.rmda(0.1), shapes_of(ramda_jax.rmda(0.1).init, {}))


def update(draw):
    """`update` with gradients, a state and parameters, some of them changed."""
    _, params, optimizer, state = taken(draw)
    grads = params
    which = draw.numbers.randrange(6)
    if which in (1, 4):
        grads = draw.changed(params)
    if which in (2, 4):
        state = other_state(draw, params, state)
    if which == 3:
        params = draw.changed(params)
    if which == 5:
        params = grads = draw.changed(params)
    updates, new_state = shapes_of(optimizer.update, grads, state, params)
    same_shapes(updates, params)
    same_shapes(new_state, state)


def other_state(draw, params, state):
    """The state with a change, or the state of another optimizer or of other parameters."""
    kind = draw.numbers.randrange(4)
    if kind == 0:
        return draw.changed(state)
    if kind == 1:
        place = draw.numbers.randrange(len(state))
        return (*state[:place], draw.changed(state[place]), *state[place + 1 :])
    other = draw.method(draw.one((None, ramda_jax.L1(), ramda_jax.GroupLasso((0,)))), solver=None)
    return shapes_of(other.init, draw.changed(params) if kind == 3 else params)


def eval_params(draw):
    """`eval_params` with a state and parameters, some of them changed."""
    _, params, _, state = taken(draw)
    which = draw.numbers.randrange(4)
    if which == 1:
        state = other_state(draw, params, state)
    if which == 2:
        params = draw.changed(params)
    if which == 3:
        state = draw.one((None, (), {"a": state}, [state, state], (state[1],), 3, state[1], optax.EmptyState()))
    same_shapes(shapes_of(ramda_jax.eval_params, state, params), params)


def solver_info(draw):
    """`solver_info` with any state."""
    _, params, _, state = taken(draw)
    if draw.happens(0.7):
        state = draw.one((other_state(draw, params, state), {"a": state}, [state, 3], state[1], state[0], None, params))
    info = shapes_of(ramda_jax.solver_info, state)
    assert info.num_steps.shape == info.residual.shape == info.converged.shape == ()


def describe(draw):
    """`describe` with any arguments."""
    methods = (*(factory.make for factory in FACTORIES), ramda_jax.prox_gen)
    method = draw.one((*OTHERS, optax.adam)) if draw.happens(0.1) else draw.one(methods)
    solver = draw.solver_spec() if draw.happens(0.3) else None
    params = draw.params() if draw.happens(0.7) else draw.any_params()
    assert "total" in ramda_jax.describe(draw.spec(), params, method, solver)


MEASURES = (
    metrics.group_sparsity, metrics.weighted_group_sparsity, metrics.kernel_sparsity, metrics.unstructured_sparsity,
    metrics.low_rank_level, metrics.numerical_rank, metrics.support, metrics.objective, metrics.layer_table,
    metrics.changed_groups,
)  # fmt: skip
VALUES = {"a": {"kernel": np.eye(3, 4, dtype=np.float32)}, "b": {"kernel": np.full((3, 4), np.nan, np.float32)}}


def measures(draw):
    """The metrics of any parameters."""
    measure = draw.one(MEASURES)
    if measure is metrics.layer_table:
        spec = draw.spec()
        table = measure(
            spec, draw.one((VALUES, {"kernel": VALUES["a"]["kernel"]}, VALUES["a"], 3, None, {"kernel": "text"}))
        )
        assert "total" in table
        return
    if measure is metrics.changed_groups:
        before = {"kernel": np.zeros((3, 1), bool), "b": np.zeros((3, 1), bool)}
        after = draw.one(
            (before, {"kernel": np.zeros((3, 1), bool)}, {"kernel": np.zeros(3, bool), "b": 3}, None, 3, {})
        )
        assert int(measure(*((before, after) if draw.happens(0.5) else (after, before)))) == 0
        return
    regularizer, params, *_ = taken(draw)
    if draw.happens(0.5):
        params = draw.changed(params)
    if draw.happens(0.2):
        regularizer = draw.spec()
    settings = {}
    if measure in (metrics.low_rank_level, metrics.numerical_rank) and draw.happens(0.5):
        settings["rtol"] = draw.one(NUMBERS)
    if measure is metrics.objective:
        settings |= {"loss": draw.one((0.5, *NUMBERS)), "strength": draw.one((0.1, *NUMBERS))}
    found = shapes_of(functools.partial(measure, regularizer, **settings), params)
    if isinstance(found, dict):
        assert all(isinstance(path, str) for path in found)
    else:
        assert found.shape == ()


ALIVE = np.array([[True], [False]])


def history(draw):
    """`StructureHistory` fed with anything, saved, damaged and loaded."""
    watched = metrics.StructureHistory(draw.one((3, 5, 100) if draw.happens(0.8) else COUNTS))
    supports = ({"a": ALIVE}, {"a": ~ALIVE}, {"a": jnp.asarray(ALIVE)}, {"a": ALIVE, "b": ALIVE})
    odd = ({"a": ALIVE.T}, {"a": np.ones((2, 1))}, {1: ALIVE}, None, 3, {"a": None}, {"a": "text"}, {}, [ALIVE])
    for step in range(draw.numbers.randrange(6)):
        watched.add(step, draw.one(supports if draw.happens(0.9) else odd[:1])) if draw.happens(0.8) else watched.add(
            draw.one(COUNTS), draw.one((*supports, *odd))
        )
    kind = draw.numbers.randrange(5)
    if kind == 0:
        assert 0 <= watched.stable_share(draw.one(COUNTS)) <= 1
    elif kind == 1:
        assert watched.has_settled(draw.one(COUNTS)) in (True, False)
    elif kind == 2:
        assert watched.last_change >= watched.steps[0]
    else:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "history.npz"
            watched.save(file)
            if kind == 4:
                file.write_bytes(hostile.change_bytes(draw.numbers, file.read_bytes()))
            again = metrics.StructureHistory.load(file)
        assert len(again.steps) == len(again.changes)


def network(params, x):
    hidden = jnp.tanh(x @ params["in"]["kernel"] + params["in"]["bias"])
    return hidden @ params["out"]["kernel"]


def weights(dead=2):
    """The parameters of `network`, with some dead hidden units."""
    numbers = np.random.default_rng(0)
    params = {
        "in": {"kernel": numbers.normal(size=(3, 4)), "bias": numbers.normal(size=4)},
        "out": {"kernel": numbers.normal(size=(4, 2))},
    }
    params["out"]["kernel"][4 - dead :] = 0
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), params)


INPUTS = np.ones((2, 3), np.float32)


@functools.cache
def good_dims():
    return compaction.trace_dims(network, weights(), INPUTS)


def overrides(draw):
    """A value for the argument `overrides`."""
    names = (None, "frozen", "one", "two", 3, "", ("a",))

    def axes():
        return tuple(draw.one(names[:4] if draw.happens(0.8) else names) for _ in range(draw.one((1, 2, 2, 3))))

    paths = ("in/kernel", "in/bias", "out/kernel", "nowhere", "", 3)
    kind = draw.numbers.randrange(5)
    if kind == 0:
        return {"in": {"kernel": axes(), "bias": draw.one((None, axes()))}}
    if kind == 1:
        return draw.one(OTHERS)
    return {draw.one(paths): axes() if draw.happens(0.9) else draw.one(OTHERS) for _ in range(draw.one((1, 1, 2)))}


def trace_dims(draw):
    """`trace_dims` with any overrides."""
    given = overrides(draw) if draw.happens(0.8) else None
    variables = weights() | ({"more": draw.any_params()} if draw.happens(0.2) else {})
    dims = compaction.trace_dims(network, variables, INPUTS, overrides=given)
    assert str(dims) and all(width.size > 0 for width in dims.widths)


def plan_compaction(draw):
    """`plan_compaction` with any variables and settings."""
    variables = changed_arrays(draw, weights(draw.numbers.randrange(5)))
    settings = {}
    if draw.happens(0.3):
        settings["round_to"] = draw.one(COUNTS)
    if draw.happens(0.3):
        settings["threshold"] = draw.one(NUMBERS)
    if draw.happens(0.3):
        settings["keep"] = draw.one(({"d0": "why"}, {"d1": ""}, {"nowhere": "x"}, {}, None, 3, {1: 2}, ["d1"], "d1"))
    plan = compaction.plan_compaction(good_dims(), variables, **settings)
    assert Plan.from_json(plan.to_json()) == plan
    if draw.happens(0.5):
        small = compaction.compact(plan, variables)
        assert jax.tree.map(np.shape, compaction.expand(plan, small)) == jax.tree.map(np.shape, variables)


def changed_arrays(draw, tree, probability=0.5):
    """A changed tree with NumPy arrays in place of shapes."""

    def filled(leaf):
        return np.ones(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf

    return jax.tree.map(filled, draw.perhaps_changed(tree, probability))


@functools.cache
def good_plan():
    return compaction.plan_compaction(good_dims(), weights())


def slices(draw):
    """`compact`, `expand` and `compact_state` with any trees."""
    plan, params = good_plan(), weights()
    small = compaction.compact(plan, params)
    kind = draw.numbers.randrange(4)
    if kind == 0:
        compaction.compact(
            plan, changed_arrays(draw, draw.one((params, (params, {"mu": params}), [params["in"]])), 0.8)
        )
    elif kind == 1:
        compaction.expand(plan, changed_arrays(draw, small, 0.8))
    elif kind == 2:
        compaction.expand(plan, small, changed_arrays(draw, params, 0.8))
    else:
        state = (optax.ScaleByAdamState(np.int32(1), params, params), optax.EmptyState())
        optimizer = draw.one((optax.scale_by_adam(), optax.identity(), optax.trace(0.9), None, 3))
        given = changed_arrays(draw, state if draw.happens(0.7) else state[0], 0.7)
        compaction.compact_state(plan, given, optimizer, changed_arrays(draw, small, 0.3))


def compact_model(draw):
    """`compact_model` with arguments that it must refuse, and rarely with good ones."""
    settings = {"variables": weights(draw.numbers.randrange(1, 4))}
    args = [INPUTS]
    model = network
    if not draw.happens(0.02):
        for _ in range(draw.one((1, 1, 2))):
            kind = draw.numbers.randrange(7)
            if kind == 0:
                settings["tolerance"] = draw.one(
                    [x for x in NUMBERS if not isinstance(x, float)] + [float("nan"), -1.0]
                )
            elif kind == 1:
                settings["num_random"] = draw.one((-1, "1", None, 1.5, True))
            elif kind == 2:
                model = draw.one([thing for thing in OTHERS if not callable(thing)])
            elif kind == 3:
                settings["variables"] = None
            elif kind == 4:
                settings["overrides"] = {draw.one(("nowhere", "in/kernel")): draw.one((3, ("a",), (None,) * 3))}
            elif kind == 5:
                settings["round_to"] = draw.one((0, -1, 1.5, "1", None, True))
            else:
                settings["threshold"] = draw.one((-1.0, float("nan"), float("inf"), None, "0", 1j, 10**400))
    small = compaction.compact_model(model, *args, **settings)
    assert small.proof.error <= 1e-5


def freeze_structure(draw):
    """`freeze_structure` with any parameters, and its `init` and `update`."""
    params = draw.params()
    regularizer = draw.spec() if draw.happens(0.5) else None
    given = draw.perhaps_changed(params, 0.3)

    def whole(given, others, updates, last):
        held = compaction.freeze_structure(given, regularizer)
        return held.update(updates, held.init(others), last)[0]

    others, updates = draw.perhaps_changed(params, 0.2), draw.perhaps_changed(params, 0.2)
    same_shapes(shapes_of(whole, given, others, updates, params), updates)


@functools.cache
def good_folder():
    """A folder that holds a good compact model and later the damaged copies, with the model's plan and variables."""
    folder = Path(tempfile.mkdtemp(prefix="ramda_jax-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = WidthPlan("d0", 8, ("dense/kernel[0]",), (0, 1), (0,), "")
    leaves = {"dense/kernel": LeafPlan((8, 4), ((0, 1), None)), "dense/bias": LeafPlan((4,), (None,))}
    plan = Plan(leaves, (kept,), {"x[1]": (0, 3)}, 1, 0.5)
    variables = {"dense": {"kernel": np.ones((2, 4), np.float32), "bias": np.arange(4, dtype=np.float32)}}
    compaction.save_compact(folder / "good", plan, variables)
    return folder, plan, variables


def load_compact(draw):
    """`load_compact` with a hostile folder."""
    folder, *_ = good_folder()
    shutil.rmtree(folder / "bad", ignore_errors=True)
    shutil.copytree(folder / "good", folder / "bad")
    return hostile.outcome(draw.numbers.randrange(2**62), folder / "bad")


def save_compact(draw):
    """`save_compact` with any variables, and `load_compact` into any tree."""
    folder, plan, variables = good_folder()
    given = changed_arrays(draw, variables, 0.7)
    if draw.happens(0.2):
        plan = draw.one((None, 3, {}, "plan", Plan({}, (), {}), Plan({"a": LeafPlan((2,), ((3,),))}, (), {})))
    target = (
        folder / "saved"
        if draw.happens(0.9)
        else draw.one((folder / "good" / "plan.json", "nul\0", folder / ("x" * 300)))
    )
    compaction.save_compact(target, plan, given)
    if draw.happens(0.5):
        compaction.load_compact(target, like=changed_arrays(draw, given, 0.7))


def plan_json(draw):
    """`Plan.from_json` with changed text."""
    fields = json.loads(good_folder()[1].to_json())
    for _ in range(draw.one((1, 1, 2))):
        if isinstance(fields, dict) and fields:
            hostile.change_json(draw.numbers, fields)
    text = json.dumps(fields)
    if draw.happens(0.2):
        text = hostile.change_bytes(draw.numbers, text.encode())
    plan = Plan.from_json(text)
    assert Plan.from_json(plan.to_json()) == plan
    assert str(plan)


#: The share of each stage in the inputs, in percent. Stages that trace a step or write files are expensive.
STAGES = {
    parts: 16,
    factories: 12,
    init: 12,
    update: 6,
    eval_params: 4,
    solver_info: 5,
    describe: 10,
    measures: 9,
    history: 5,
    trace_dims: 3,
    plan_compaction: 4,
    slices: 3,
    compact_model: 1,
    freeze_structure: 3,
    load_compact: 2,
    save_compact: 2,
    plan_json: 3,
}
