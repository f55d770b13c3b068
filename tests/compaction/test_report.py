import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax
from ramda_jax.compaction import (
    CompactionError,
    Plan,
    compact_model,
    compaction_report,
    cost,
    draw_report,
    load_compact,
    save_compact,
)
from tests.tiny import array


def mlp(params, x):
    return jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"]) @ params["b"]["kernel"]


def small_mlp(dtype=jnp.float32, **settings):
    rng = np.random.default_rng(0)
    shapes = {"a": {"kernel": (6, 8), "bias": (8,)}, "b": {"kernel": (8, 3)}}
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    params = jax.tree.map(lambda shape: array(rng.normal(size=shape), dtype), shapes, is_leaf=is_shape)
    params["b"]["kernel"] = params["b"]["kernel"].at[2:].set(0)
    return compact_model(mlp, array(rng.normal(size=(5, 6)), dtype), variables=params, **settings)


def test_report_counts_what_can_be_counted_by_hand(tmp_path):
    small, batch = small_mlp(), jnp.ones((5, 6))
    report = compaction_report(small, batch, regularizer=ramda_jax.GroupLasso("input"), rounds=3)
    assert (report.before.params, report.after.params) == (6 * 8 + 8 + 8 * 3, 6 * 2 + 2 + 2 * 3)
    assert (report.before.bytes, report.after.bytes) == (320, 80)
    assert report.removed_params == pytest.approx(0.75)
    # There are 6 groups of 8 entries and 8 groups of 3 entries, and six of the latter are zero. So the weighted
    # sparsity is neither 75 % nor the removed share of FLOPs.
    assert report.weighted_group_sparsity == pytest.approx(18 / 72)
    assert report.removed_flops == pytest.approx(1 - report.after.flops / report.before.flops)
    assert 0.5 < report.removed_flops < 1
    assert report.widths == (("a/kernel[1]", 2, 8),)
    assert report.layers == (
        ("a/bias", (8,), (2,)),
        ("a/kernel", (6, 8), (6, 2)),
        ("b/kernel", (8, 3), (2, 3)),
    )
    assert report.speedup > 0
    assert report.error == small.proof.error
    text = str(report)
    for part in ("parameters", "80", "20", "75.0% removed", "ms of a call", "25.0%", "a/kernel", "6x8", "6x2"):
        assert part in text
    draw_report(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_report_without_timing_and_regularizer_leaves_them_out():
    report = compaction_report(small_mlp(), jnp.ones((5, 6)), rounds=0)
    assert math.isnan(report.speedup)
    assert report.weighted_group_sparsity is None
    assert "ms of a call" not in str(report)
    assert "weighted group sparsity" not in str(report)


def test_report_does_not_count_what_is_kept_for_a_round_size():
    small = small_mlp(round_to=4)
    assert small.plan.dead == ()  # some of the kept units are read
    report = compaction_report(small, jnp.ones((5, 6)), rounds=0)
    assert report.widths == (("a/kernel[1]", 2, 8),)
    assert report.after.params == 6 * 4 + 4 + 4 * 3


def test_cost_counts_the_flops_of_a_product():
    assert cost(lambda w, x: x @ w, jnp.ones((4, 3)), jnp.ones((2, 4))).flops == 2 * 2 * 3 * 4


def one_layer(w, x):
    return x @ w


def stack_of_stacks(w, x):
    """A scan of scans, the inner one under `jit`, as a layer's function may be."""
    layers = jax.jit(lambda x, own: (jax.lax.scan(lambda x, w: (one_layer(w, x), None), x, own)[0], None))
    return jax.lax.scan(layers, x, w)[0]


@pytest.mark.parametrize("lengths", [(1, 1), (2, 1), (3, 4)])
def test_cost_counts_what_a_scan_repeats_as_often_as_it_does(lengths):
    w, x = jnp.ones((*lengths, 8, 8)), jnp.ones((2, 8))
    each = cost(one_layer, w[0, 0], x).flops
    assert each == 2 * 2 * 8 * 8
    # A loop's steps are all counted.
    assert each <= cost(stack_of_stacks, w, x).flops / (lengths[0] * lengths[1]) < each + 20


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_saved_is_loaded_bit_by_bit(tmp_path, dtype):
    small = small_mlp(dtype)
    save_compact(tmp_path / "model", small.plan, small.variables)
    plan, variables = load_compact(tmp_path / "model", like=small.whole[1])
    assert plan == small.plan
    assert jax.tree.structure(variables) == jax.tree.structure(small.variables)
    for saved, loaded in zip(jax.tree.leaves(small.variables), jax.tree.leaves(variables), strict=True):
        assert loaded.dtype == saved.dtype == dtype
        assert jnp.array_equal(saved, loaded)
    by_path = load_compact(tmp_path / "model")[1]
    assert sorted(by_path) == ["a/bias", "a/kernel", "b/kernel"]
    assert json.loads((tmp_path / "model" / "plan.json").read_text())["format"] == 1


def test_save_and_load_refuse_what_does_not_belong_together(tmp_path):
    small = small_mlp()
    with pytest.raises(CompactionError, match=r"'a/bias' has shape \(8,\) where the plan has \(2,\)"):
        save_compact(tmp_path, small.plan, small.whole[1])
    save_compact(tmp_path, small.plan, small.variables)
    with pytest.raises(CompactionError, match="`like` must have the paths that were saved"):
        load_compact(tmp_path, like={"a": jnp.ones(3)})
    text = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text.replace("a/bias", "c/bias"))
    with pytest.raises(CompactionError, match="must hold the same leaves"):
        load_compact(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "No plan"), ("{}", "No plan"), ("nothing", "No plan"), ('{"format": 99}', "must have format 1")],
)
def test_plan_refuses_text_that_is_no_plan(text, message):
    with pytest.raises(CompactionError, match=message):
        Plan.from_json(text)
