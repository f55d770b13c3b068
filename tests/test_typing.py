"""Code that a type checker must accept. `make types` checks this file as a user's checker would; tests also run it."""

# pyright: standard

from typing import Any, assert_type

import jax
import jax.numpy as jnp
import optax

import ramda_jax
from ramda_jax.typing import AdaptiveStageSettings, RegularizerSpec, Scalar, StageSettings

PARAMS: dict[str, Any] = {"kernel": jnp.ones((4, 3))}


def test_stages_are_arguments_of_ramda_and_rmda():
    settings = ramda_jax.stages(1e-2, 0.1, (4, 8))
    assert_type(settings, StageSettings)
    assert settings["restarts"] == (4, 8)
    for optimizer in (ramda_jax.ramda(**settings), ramda_jax.rmda(**settings)):
        assert optimizer.init(PARAMS)


def test_stages_with_eps_are_arguments_of_ramda():
    settings = ramda_jax.stages(1e-2, eps=1e-3, total_steps=100)
    assert_type(settings, AdaptiveStageSettings)
    assert ramda_jax.ramda(regularizer=ramda_jax.GroupLasso(), strength=1e-4, **settings).init(PARAMS)


def test_only_ramda_with_kernels_has_a_step():
    assert_type(ramda_jax.ramda(0.1), optax.GradientTransformationExtraArgs)
    optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), strength=0.1, fused=True)
    params, state = ramda_jax.fused_step(optimizer)(PARAMS, optimizer.init(PARAMS), PARAMS)
    assert params.keys() == PARAMS.keys() and len(state) == 3


def test_eval_params_are_of_the_type_of_the_parameters():
    optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), strength=0.1)
    point = ramda_jax.eval_params(optimizer.init(PARAMS), PARAMS)
    assert_type(point, dict[str, Any])
    assert point.keys() == PARAMS.keys()


def test_specs_of_every_form_are_regularizers():
    leaf = ramda_jax.L1()
    specs: tuple[RegularizerSpec, ...] = (
        None,
        leaf,
        {"kernel": leaf},
        {"kernel": None},
        jax.tree.map(lambda _: leaf, PARAMS),
    )
    assert [bool(ramda_jax.structure.regularized_leaves(spec, PARAMS)) for spec in specs] == [
        False,
        True,
        True,
        False,
        True,
    ]


class Shrinking(ramda_jax.Regularizer):
    """A regularizer as a user writes it, annotated and with its own trait."""

    convex = False

    def value(self, w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.abs(w))

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        return x / (1 + weight)


def test_traits_are_plain_attributes():
    projection = ramda_jax.Projection(optax.projections.projection_simplex, is_convex=False)
    assert_type(projection.convex, bool)
    assert (projection.convex, Shrinking().convex, ramda_jax.L1().convex) == (False, False, True)
    assert (ramda_jax.SparseGroupLasso(l1_ratio=0.25).l1_ratio, ramda_jax.GroupLasso().l1_ratio) == (0.25, 0.0)
