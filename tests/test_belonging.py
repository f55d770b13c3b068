"""A traced step checks that gradients, parameters, states and solvers belong together."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

import ramda_jax
from ramda_jax import compaction
from ramda_jax.compaction import LeafPlan, Plan

ROWS = ramda_jax.GroupLasso(0)
METHODS = {
    "ramda": functools.partial(ramda_jax.ramda, 0.1),
    "rmda": functools.partial(ramda_jax.rmda, 0.1),
    "prox_sgd": functools.partial(ramda_jax.prox_sgd, 0.1),
    "prox_adamw": functools.partial(ramda_jax.prox_adamw, 0.1),
    "prox_ssi": functools.partial(ramda_jax.prox_ssi, 0.1),
}


def tree(rows, columns, dtype=jnp.float32):
    return {"a": {"kernel": jax.ShapeDtypeStruct((rows, columns), dtype)}, "b": jax.ShapeDtypeStruct((columns,), dtype)}


def traced(optimizer, grads, params, state_of):
    """Traces one step, with a state for the parameters `state_of`, or with the state of another optimizer."""
    other, of = state_of if isinstance(state_of, tuple) else (optimizer, state_of)
    state = jax.eval_shape(other.init, of)
    return jax.eval_shape(optimizer.update, grads, state, params)


PARAMS = tree(3, 4)
OTHERS = {
    "gradients that would be broadcast": (
        (tree(1, 4), PARAMS, PARAMS),
        r"Gradients.* got \(1, 4\).*\(3, 4\) at 'a/ker",
    ),
    "larger gradients": ((tree(3, 4), tree(1, 4), tree(1, 4)), r"Gradients .* got \(3, 4\).*\(1, 4\) at 'a/kernel'"),
    "a state that would be broadcast": ((PARAMS, PARAMS, tree(1, 4)), r"state.* \(1, 4\).*\(3, 4\)|state.*\(1, 4\) at"),
    "a larger state": ((tree(1, 4), tree(1, 4), PARAMS), r"\(3, 4\).*\(1, 4\) at 'a/kernel'"),
    "gradients with a leaf less": (
        ({"b": PARAMS["b"]}, PARAMS, PARAMS),
        r"Gradients.* lack 'a/kernel' of shape \(3, 4\)",
    ),
    "gradients with a leaf more": (
        (PARAMS | {"c": PARAMS["b"]}, PARAMS, PARAMS),
        r"Gradients .* also have 'c' of shape \(4,\)",
    ),
    "gradients of another name": (
        ({"x": PARAMS["a"], "b": PARAMS["b"]}, PARAMS, PARAMS),
        r"Gradients.* lack 'a/kernel'",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_refuses_what_is_of_other_trees_and_shapes(method, case):
    optimizer = METHODS[method](ROWS, strength=0.1)
    (grads, params, state_of), message = OTHERS[case]
    with pytest.raises(ValueError, match=message):
        traced(optimizer, grads, params, state_of)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_refuses_gradients_that_are_not_real(method):
    optimizer = METHODS[method]()
    with pytest.raises(TypeError, match=r"Gradients must be arrays of real numbers, got complex64 at 'a/kernel'"):
        traced(optimizer, tree(3, 4, jnp.complex64), PARAMS, PARAMS)


@pytest.mark.parametrize("method", ["ramda", "rmda"])
def test_a_step_refuses_sums_that_are_narrower_than_the_parameters(method, x64):
    optimizer = METHODS[method]()
    wide = tree(3, 4, jnp.float64)
    with pytest.raises(ValueError, match=r"must be of float64 for parameters of float64, got float32 at 'a/kernel'"):
        traced(optimizer, wide, wide, PARAMS)
    traced(optimizer, tree(3, 4, jnp.bfloat16), tree(3, 4, jnp.bfloat16), PARAMS)


@pytest.mark.parametrize("method", ["ramda", "rmda"])
def test_a_step_refuses_sums_in_half_precision(method):
    optimizer, params = METHODS[method](), tree(3, 4, jnp.bfloat16)
    first, *others = optimizer.init(params)
    with pytest.raises(ValueError, match=r"`grad_sum` must be of float32 or wider, got \['bfloat16'\]"):
        optimizer.update(params, (first._replace(grad_sum=params), *others), params)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_refuses_the_state_of_another_method_regularizer_or_solver(method):
    make = METHODS[method]
    optimizer = make(ROWS, strength=0.1)
    for other in METHODS:
        if method == other:
            continue
        with pytest.raises(ValueError, match="The state must be"):
            traced(optimizer, PARAMS, PARAMS, (METHODS[other](ROWS, strength=0.1), PARAMS))
    for other, message in (
        (make(ramda_jax.L1(), strength=0.1), r"optimizer's regularizer, got L1\(.*in the state and GroupLasso"),
        (make(), "optimizer's regularizer, got None in the state and GroupLasso"),
        (make({"kernel": ROWS}, strength=0.1), r"regularizer, got \{'kernel': GroupLasso"),
        (make(ramda_jax.GroupLasso(1), strength=0.1), "optimizer's regularizer"),
        (make(ROWS, strength=0.1, solver=ramda_jax.ProximalGradient()), r"optimizer's solver, got ProximalGradient"),
    ):
        with pytest.raises(ValueError, match=message):
            traced(optimizer, PARAMS, PARAMS, (other, PARAMS))
    # Numbers such as a rate or a strength may change, and functions that were made again count as the same.
    traced(optimizer, PARAMS, PARAMS, (make(ROWS, strength=0.5), PARAMS))
    one, other = (ramda_jax.ProximalGradient(tolerance=ramda_jax.summable_tolerance(1.0)) for _ in range(2))
    traced(make(ROWS, strength=0.1, solver=one), PARAMS, PARAMS, (make(ROWS, strength=0.1, solver=other), PARAMS))


@pytest.mark.parametrize("method", METHODS)
def test_the_default_solver_is_no_other_where_it_is_named(method):
    kind = "scalar" if method in ("rmda", "prox_sgd") else "diagonal"
    params = PARAMS | {"c": PARAMS["a"]}
    regularizer = {"a/kernel": ROWS, "c/kernel": ramda_jax.L1()}
    default = METHODS[method](regularizer, strength=0.1)
    solvers = {key: ramda_jax.default_solver(part, kind) for key, part in regularizer.items()}
    named = METHODS[method](regularizer, strength=0.1, solver=solvers)
    traced(named, params, params, (default, params))
    traced(default, params, params, (named, params))
    other = METHODS[method](regularizer, strength=0.1, solver=solvers | {"c/kernel": ramda_jax.ProximalGradient()})
    with pytest.raises(ValueError, match="one of this optimizer's solver, got None in the state"):
        traced(other, params, params, (default, params))


def test_the_parts_of_a_chain_refuse_what_is_not_theirs():
    params = {"kernel": jnp.ones((3, 2))}
    middle, end = ramda_jax.proximal_point(ROWS, 0.1), ramda_jax.iterate_averaging(1.0)
    whole = jnp.ones((3, 2))
    for linear, metric, message in (
        (jnp.ones((1, 2)), jnp.ones(()), r"model's `linear` .* \(1, 2\).*\(3, 2\) at 'kernel'"),
        (whole, jnp.ones((3, 1)), r"model's `metric` .* \(3, 1\).*\(3, 2\) at 'kernel'"),
    ):
        trees = ({"kernel": leaf} for leaf in (linear, whole, metric))
        model = ramda_jax.QuadraticModel(*trees, weight=jnp.ones(()))
        with pytest.raises(ValueError, match=message):
            middle.update(model, middle.init(params), params)
    with pytest.raises(ValueError, match=r"Points to average with .* \(1, 2\).*\(3, 2\) at 'kernel'"):
        end.update({"kernel": jnp.ones((1, 2))}, end.init(params), params)
    with pytest.raises(ValueError, match="got one without an iterate"):
        ramda_jax.iterate_averaging(1.0, "float32").update(params, end.init(params), params)
    with pytest.raises(ValueError, match="got one with an iterate"):
        end.update(params, ramda_jax.iterate_averaging(1.0, "float32").init(params), params)
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        end.update(params, end.init(params))


def test_radii_of_other_parameters_are_refused():
    optimizer = METHODS["ramda"](ROWS, strength=0.1)
    state = jax.eval_shape(optimizer.init, PARAMS)
    other = jax.eval_shape(optimizer.init, tree(5, 4))
    mixed = (state[0], state[1]._replace(radii=other[1].radii), state[2])
    with pytest.raises(
        ValueError, match=r"radii must be .* got \(5, 1\) float32 where .* \(3, 1\) float32 at 'a/kernel'"
    ):
        jax.eval_shape(optimizer.update, PARAMS, mixed, PARAMS)


def test_eval_params_refuses_parameters_of_other_shapes():
    optimizer = METHODS["ramda"](ROWS, strength=0.1)
    state = jax.eval_shape(optimizer.init, PARAMS)
    with pytest.raises(ValueError, match=r"got \(1, 4\) where the state has \(3, 4\) at 'a/kernel'"):
        jax.eval_shape(ramda_jax.eval_params, state, tree(1, 4))


STRUCTURED = {"kernel": jnp.array([[1.0, 2.0], [0.0, 0.0]])}


@pytest.mark.parametrize("regularizer", [None, ROWS])
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"params": STRUCTURED}, r"at 'kernel' has shape \(2, 2\) where they have None .*\['params/kernel'\]"),
        ({"kernel": jnp.ones((2, 3))}, r"has shape \(2, 2\) where they have \(2, 3\)"),
        ({"kernel": jnp.ones((4, 2))}, r"has shape \(2, 2\) where they have \(4, 2\)"),
    ],
)
def test_freeze_structure_refuses_parameters_that_it_would_not_hold(regularizer, params, message):
    with pytest.raises(ValueError, match=message):
        compaction.freeze_structure(STRUCTURED, regularizer).init(params)


def test_freeze_structure_holds_what_a_mask_lets_it_see():
    params = STRUCTURED | {"other": jnp.ones(3)}
    frozen = compaction.freeze_structure(STRUCTURED)
    assert frozen.init(params).alive["kernel"].tolist() == [[True, True], [False, False]]
    hidden = optax.masked(compaction.freeze_structure(params), {"kernel": False, "other": True})
    jax.eval_shape(hidden.init, params)
    state = frozen.init(STRUCTURED)
    with pytest.raises(ValueError, match=r"Updates .* \(1, 2\).*\(2, 2\) at 'kernel'"):
        frozen.update({"kernel": jnp.ones((1, 2))}, state, STRUCTURED)
    with pytest.raises(ValueError, match=r"state's masks .* \(2, 2\).*\(4, 3\) at 'kernel'"):
        frozen.update({"kernel": jnp.ones((4, 3))}, frozen.init(STRUCTURED), {"kernel": jnp.ones((4, 3))})


PLAN = Plan({"kernel": LeafPlan((3, 2), ((0, 2), None))}, (), {})
WHOLE, SMALL = {"kernel": jnp.ones((3, 2))}, {"kernel": jnp.ones((2, 2))}


@pytest.mark.parametrize(
    ("made_by", "goes_on", "message"),
    [
        (optax.adam(0.1), optax.adabelief(0.1), "has 'ScaleByAdamState' where its own has 'ScaleByBeliefState'"),
        (optax.sgd(0.1, momentum=0.9), optax.lion(0.1), "of the kind that made the state"),
        (optax.trace(0.9), optax.ema(0.9), "of the kind that made the state"),
        (ramda_jax.prox_sgd(0.1), ramda_jax.prox_adamw(0.1), "of the kind that made the state"),
    ],
)
def test_compact_state_refuses_the_state_of_another_optimizer(made_by, goes_on, message):
    with pytest.raises(compaction.CompactionError, match=message):
        compaction.compact_state(PLAN, made_by.init(WHOLE), goes_on, SMALL)


def test_compact_state_refuses_another_dtype():
    small = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), SMALL)
    with pytest.raises(
        compaction.CompactionError, match=r"'0/mu/kernel' is of float32, but `optimizer` wants bfloat16"
    ):
        compaction.compact_state(PLAN, optax.adam(0.1).init(WHOLE), optax.adam(0.1), small)


def test_expand_refuses_a_whole_of_other_leaves_or_shapes():
    small = SMALL | {"other": jnp.ones(5)}
    for whole, message in (
        ({"other": jnp.ones(5)}, r"differs in \['kernel'\]"),
        ({"a": jnp.ones(1), **WHOLE}, r"differs in \['a', 'other'\]"),
        ({"kernel": jnp.ones((4, 2)), "other": jnp.ones(5)}, r"must have the shape \(3, 2\).* got \(4, 2\)"),
    ):
        with pytest.raises(compaction.CompactionError, match=message):
            compaction.expand(PLAN, small, whole)


def test_prox_sgds_metric_is_one_number():
    """Otherwise its closed form would become a solve in a diagonal metric."""
    builder = ramda_jax.preconditioned(0.1, optax.ema(0.9, debias=False))
    model, _ = jax.eval_shape(builder.update, PARAMS, jax.eval_shape(builder.init, PARAMS), PARAMS)
    assert {leaf.shape for leaf in jax.tree.leaves(model.metric)} == {()}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"grad_sq_sum": {"kernel": jnp.ones((3, 2), jnp.float16)}},
            ValueError,
            r"`grad_sq_sum` must be of float32 or",
        ),
        ({"grad_sq_sum": {"kernel": jnp.ones((1, 2))}}, ValueError, r"`grad_sq_sum` must have the shapes of its"),
        ({"grad_sq_sum": {"kernel": True}}, TypeError, r"state's leaves must be arrays of numbers, got type bool at"),
        (
            {"anchor": {"kernel": jnp.ones((3, 2), jnp.complex64)}},
            TypeError,
            r"model's `anchor` must be .* got complex64",
        ),
        ({"model_step": jnp.zeros(2, jnp.int32)}, ValueError, r"`model_step` must be one number, .* of shape \(2,\)"),
        ({"step_size_sum": jnp.zeros([], bool)}, ValueError, r"`step_size_sum` must be one number, .* got bool"),
    ],
)
def test_what_is_wrong_in_a_state_is_named(change, error, message):
    params = {"kernel": jnp.ones((3, 2))}
    optimizer = METHODS["ramda"](ROWS, strength=0.1)
    first, *others = optimizer.init(params)
    state = (first._replace(**change), *others)
    with pytest.raises(error, match=message):
        optimizer.update(params, state, params)
    with pytest.raises(error, match=message):
        ramda_jax.eval_params(state, params)


@pytest.mark.parametrize("kind", [optax.MaskedNode(), None, (), jnp.zeros(2), jnp.zeros([], jnp.int32)], ids=repr)
@pytest.mark.parametrize("field", ["strength", "current", "next", "weight", "model_weight", "share"])
def test_what_is_no_strength_in_a_state_is_named(field, kind):
    params = {"kernel": jnp.ones((3, 2))}
    strength = 0.1 if field == "strength" else ramda_jax.Target(0.5, hold=5)
    optimizer = METHODS["ramda"](ROWS, strength=strength)
    first, middle, last = optimizer.init(params)
    wrong = kind if field == "strength" else middle.strength._replace(**{field: kind})
    message = rf"`(strength\.)?{field}` must be one number, .* `optimizer.init\(params\)`"
    with pytest.raises(ValueError, match=message):
        optimizer.update(params, (first, middle._replace(strength=wrong), last), params)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "complex64", "bool", "int32"])
def test_what_is_no_flag_in_a_targets_state_is_named(dtype):
    params = {"kernel": jnp.ones((3, 2))}
    optimizer = METHODS["ramda"](ROWS, strength=ramda_jax.Target(0.5, hold=5))
    first, middle, last = optimizer.init(params)
    wrong = middle.strength._replace(is_constant=jnp.zeros([], dtype))
    state = (first, middle._replace(strength=wrong), last)
    if dtype in ("bool", "int32"):  # `optax.contrib.sam` turns a bool into an integer
        jax.eval_shape(optimizer.update, params, state, params)
        return
    with pytest.raises(ValueError, match=rf"`strength.is_constant` must be one .* of bool or integer, got {dtype}"):
        optimizer.update(params, state, params)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_whole_numbers_are_gradients_too(method, dtype):
    traced(METHODS[method](ROWS, strength=0.1), tree(3, 4, dtype), PARAMS, PARAMS)


def test_trees_of_other_containers_are_refused_by_name():
    optimizer, params = METHODS["rmda"](), [jnp.ones(2)]
    with pytest.raises(ValueError, match=r"Gradients must have the containers of the parameters.*; take them"):
        optimizer.update({"0": jnp.ones(2)}, optimizer.init(params), params)


def test_a_state_without_leaves_is_refused_for_parameters_with_some():
    params = {"kernel": jnp.ones((3, 2))}
    for method in ("ramda", "rmda"):
        optimizer = METHODS[method]()
        with pytest.raises(
            ValueError, match="The state's sums must have the leaves of the parameters, but lack 'kernel'"
        ):
            optimizer.update(params, optimizer.init(None), params)
