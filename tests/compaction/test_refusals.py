"""Cases that must be refused, or kept with a reason, because they would silently give a wrong model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax.compaction import CompactionError, compact, compact_model, plan_compaction, trace_dims, verify
from ramda_jax.compaction.proof.equation_params import _is_same
from ramda_jax.compaction.proof.numbers import compare_outputs, random_batches
from tests.tiny import array

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)


def make(dead_in_second=0, dead_in_third=0):
    """Three matrices. The last rows of the second and the third are zero."""
    rng = np.random.default_rng(1)
    params = {name: rng.normal(size=shape) for name, shape in {"a": (5, 8), "b": (8, 6), "c": (6, 4)}.items()}
    params["b"][8 - dead_in_second :] = 0
    params["c"][6 - dead_in_third :] = 0
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)


def mlp(params, x, between=lambda h: h):
    return jnp.tanh(between(jnp.tanh(x @ params["a"])) @ params["b"]) @ params["c"]


def with_between(between):
    return lambda params, x: mlp(params, x, between)


def group_norm(h):
    groups = h.reshape(len(h), 4, 2)
    groups = (groups - groups.mean(-1, keepdims=True)) / (1 + groups.std(-1, keepdims=True))
    return groups.reshape(len(h), -1)


def group_norm_of_any_width(h):
    groups = h.reshape(len(h), 4, -1)
    return (groups - groups.mean(-1, keepdims=True)).reshape(len(h), -1)


def noise_of_a_seed(h):
    with jax.ensure_compile_time_eval():
        key = jax.random.key(h.shape[-1])
    return h + jax.random.normal(key, (len(h), 1))


#: Maps names to (the function between the first two layers, the reason why the width must stay).
KILLERS = {
    "group norm": (group_norm, "cannot reshape array"),
    "group norm of any width": (group_norm_of_any_width, "reshape must return"),
    "width read from a shape": (lambda h: h / jnp.sqrt(h.shape[-1]), "the constant in sqrt depends on a size"),
    "factor read from a shape": (lambda h: h * h.shape[-1], "the constant in mul depends on a size"),
    "random key from a shape": (noise_of_a_seed, "it went from"),
    "hard-coded reshape": (lambda h: jnp.tanh(h.reshape(3, 2, 4)).reshape(3, 8), "cannot reshape array"),
    "branch on a width": (lambda h: jnp.sin(h) if h.shape[-1] > 5 else h, "fed with|computes"),
    "slice with a number": (lambda h: jnp.concatenate([h[:, 4:], h[:, :4]], -1), "slice"),
}


@pytest.mark.parametrize("name", KILLERS)
def test_compact_model_refuses_with_the_reason_when_the_program_depends_on_the_width(name):
    between, reason = KILLERS[name]
    with pytest.raises(CompactionError, match=f"Nothing can be deleted without changing.*{reason}"):
        compact_model(with_between(between), X, variables=make(dead_in_second=4))


@pytest.mark.parametrize("name", KILLERS)
def test_compact_model_keeps_the_culprit_and_makes_the_rest_small(name):
    between, reason = KILLERS[name]
    params = make(dead_in_second=4, dead_in_third=2)
    small = compact_model(with_between(between), X, variables=params)
    assert jax.tree.map(jnp.shape, small.variables) == {"a": (5, 8), "b": (8, 4), "c": (4, 4)}
    assert len(small.refused) == 1
    [why] = small.refused.values()
    assert any(part in why for part in reason.split("|"))
    assert f"had to stay: {why}" in str(small)


@pytest.mark.parametrize("name", KILLERS)
def test_compact_model_strict_refuses_at_the_first_difference(name):
    between, _ = KILLERS[name]
    with pytest.raises(CompactionError, match="The small model is not the planned one"):
        compact_model(with_between(between), X, variables=make(4, 2), strict=True)


def test_an_einsum_whose_order_depends_on_sizes_says_so_and_goes_with_an_order():
    def experts(optimize):
        def run(params, x):
            h = jnp.tanh(jnp.einsum("tc,ech->teh", x, params["up"]))
            return jnp.einsum("teh,ehc,te->tc", h, params["down"], x[:, :4], optimize=optimize)

        return run

    rng = np.random.default_rng(0)
    up, down = rng.normal(size=(4, 4, 10)), rng.normal(size=(4, 10, 4))
    down[:, [1, 3, 4, 8]] = 0
    params, x = {"up": jnp.asarray(up), "down": jnp.asarray(down)}, array(rng.normal(size=(6, 4)))
    with pytest.raises(CompactionError, match=r"teh,ehc,te->tc is fed.*`optimize=\[\(0, 1\), \(0, 1\)\]`"):
        compact_model(experts("optimal"), x, variables=params, num_random=0)
    small = compact_model(experts([(0, 1), (0, 1)]), x, variables=params, num_random=0)
    assert small.variables["up"].shape == (4, 4, 6)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda h: h - h.mean(-1, keepdims=True), "reduce_sum runs over it"),
        (lambda h: jax.nn.softmax(h, axis=-1), "reduce_max runs over it"),
        (lambda h: jnp.sort(h, axis=-1), "sort runs over it"),
        (lambda h: jnp.cumsum(h, axis=-1), "cumsum runs over it"),
        (lambda h: jnp.fft.fft(h).real, "fft works on it as a whole"),
        (lambda h: h + jax.random.normal(jax.random.key(0), h.shape), "numbers drawn at random along it"),
        (lambda h: h.at[:, jnp.array([2, 5])].set(0), "indexed by data"),
        (lambda h: h * np.arange(8.0, dtype=np.float32), "an array that the program closes over"),
    ],
)
def test_trace_dims_freezes_an_axis_that_is_looked_along(between, reason):
    dims = trace_dims(with_between(between), make(), X)
    [width] = [width for width in dims.widths if any(str(member) == "a[1]" for member in width.members)]
    assert width.reason == reason


def test_an_unknown_primitive_is_listed_and_does_not_stop_the_rest():
    def callback(h):
        return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct(h.shape, h.dtype), h, vmap_method="expand_dims")

    small = compact_model(with_between(callback), X, variables=make(4, 2))
    assert small.dims.opaque == {"pure_callback": 1}
    assert "no rule for: pure_callback (1 times)" in str(small.dims)
    assert "pure_callback, for which there is no rule" in {width.reason for width in small.dims.widths}
    assert jax.tree.map(jnp.shape, small.variables) == {"a": (5, 8), "b": (8, 4), "c": (4, 4)}


def test_channels_of_padding_go_only_where_the_code_follows():
    """Two channels of zeros, four of the first layer, and two more of zeros; nothing reads the first of each."""
    params = {"a": jnp.ones((5, 4)), "b": jnp.ones((8, 3)).at[jnp.array([0, 2, 6])].set(0)}

    def padded(low):
        def function(params, x):
            h = jnp.tanh(x @ params["a"])
            size = len(params["b"])
            before = low(size)
            return jnp.pad(h, ((0, 0), (before, size - h.shape[1] - before))) @ params["b"]

        return function

    # One column of zeros is left before, and one after, of two each.
    small = compact_model(padded(lambda size: size // 4), X, variables=params)
    assert jax.tree.map(jnp.shape, small.variables) == {"a": (5, 3), "b": (5, 3)} and small.refused == {}
    small = compact_model(padded(lambda size: 2), X, variables=params)
    assert jax.tree.map(jnp.shape, small.variables) == {"a": (5, 3), "b": (7, 3)}
    [why] = small.refused.values()
    assert "must pad axis 1 by (1, 1) in the small model, got (2, 0)" in why


def test_what_is_written_at_a_fixed_place_must_be_written_to_the_same_indices():
    """Four entries are written into eight, from position 2 on."""
    params = {"a": jnp.ones((5, 4)), "b": jnp.ones((8, 3)).at[jnp.array([0, 3])].set(0)}

    def written(start):
        def function(params, x):
            h = jnp.tanh(x @ params["a"])
            first = start(len(params["b"]))
            return jnp.ones((3, len(params["b"]))).at[:, first : first + h.shape[1]].set(h) @ params["b"]

        return function

    small = compact_model(written(lambda size: 2), X, variables=params)
    assert jax.tree.map(jnp.shape, small.variables) == {"a": (5, 3), "b": (7, 3)}
    with pytest.raises(CompactionError, match="must begin at 1 of axis 1 in the small model, got 2"):
        compact_model(written(lambda size: 2), X, variables=params, strict=True)


def without(plan, name, index):
    """A plan that deletes one more index of a width."""
    widths = tuple(
        dataclasses.replace(width, kept=tuple(i for i in width.kept if i != index)) if width.name == name else width
        for width in plan.widths
    )
    [members] = [width.members for width in plan.widths if width.name == name]
    leaves = {}
    for path, leaf in plan.leaves.items():
        kept = list(leaf.kept)
        for axis, size in enumerate(leaf.shape):
            if f"{path}[{axis}]" in members:
                kept[axis] = tuple(i for i in (range(size) if kept[axis] is None else kept[axis]) if i != index)
        leaves[path] = dataclasses.replace(leaf, kept=tuple(kept))
    return dataclasses.replace(plan, leaves=leaves, widths=widths)


def test_verify_refuses_a_live_channel_deleted():
    params = make(dead_in_second=4)
    dims = trace_dims(mlp, params, X)
    right = plan_compaction(dims, params)
    wrong = without(right, "d1", 2)
    assert verify(mlp, params, mlp, compact(right, params), X, plan=right).error <= 1e-5
    with pytest.raises(CompactionError, match=r"index 2 of d1 is deleted but read by b\[0\], which is not zero there"):
        verify(mlp, params, mlp, compact(wrong, params), X, plan=wrong)
    # The comparison of outputs alone would have found it too.
    error, reason = compare_outputs(mlp, params, mlp, compact(wrong, params), random_batches((X,), 1))
    assert error > 1e-2
    assert "outputs differ by" in str(reason)


@pytest.mark.parametrize("tiny", [1e-30, np.finfo(np.float32).tiny, np.nan])
def test_one_tiny_nonzero_keeps_its_channel(tiny):
    params = make(dead_in_second=4)
    zeros = plan_compaction(trace_dims(mlp, params, X), params)
    assert zeros.leaves["a"].small_shape == (5, 4)
    params["b"] = params["b"].at[6, 1].set(tiny)
    dims = trace_dims(mlp, params, X)
    assert plan_compaction(dims, params).leaves["a"].kept[1] == (0, 1, 2, 3, 6)
    # Outputs cannot distinguish 1e-30 from 0, but the plan for the zeros is refused.
    with pytest.raises(CompactionError, match=r"index 6 of d1 is deleted but read by b\[0\]"):
        verify(mlp, params, mlp, compact(zeros, params), X, plan=zeros)


def test_a_threshold_is_an_option_of_its_own():
    params = make(dead_in_second=4)
    params["b"] = params["b"].at[6].set(1e-4)
    assert compact_model(mlp, X, variables=params).variables["a"].shape == (5, 5)
    small = compact_model(mlp, X, variables=params, threshold=1e-3)
    assert small.variables["a"].shape == (5, 4)
    assert small.plan.threshold == 1e-3
    # The proof compares with the model in which these entries are zero.
    assert float(jnp.abs(small.whole[1]["b"][6]).max()) == 0


def twice_the_sine(h):
    sine = jnp.sin(h)
    return sine + sine


def test_verify_refuses_a_small_model_that_is_not_the_planned_one():
    params = make(dead_in_second=4)
    plan = plan_compaction(trace_dims(mlp, params, X), params)
    small = compact(plan, params)

    with pytest.raises(CompactionError, match="the small one computes"):
        verify(mlp, params, with_between(jnp.sin), small, X, plan=plan)
    with pytest.raises(CompactionError, match="fed with something else"):
        ours, theirs = with_between(lambda h: jnp.sin(h) + h), with_between(twice_the_sine)
        verify(ours, params, theirs, small, X, plan=plan)
    with pytest.raises(CompactionError, match="'a' must have shape"):
        verify(mlp, params, mlp, {**small, "a": small["a"][:, :3], "b": small["b"][:3]}, X, plan=plan)
    # The program and the shapes are right, but the numbers are wrong.
    with pytest.raises(CompactionError, match="outputs differ by"):
        verify(mlp, params, mlp, small | {"a": small["a"] * 1.001}, X, plan=plan)


def test_differences_are_relative_to_the_largest_output_and_nan_is_one():
    def product(scale, x):
        return scale * x

    for factor, is_same in ((1 + 1e-6, True), (1 + 1e-4, False), (np.nan, False)):
        _, reason = compare_outputs(product, 1e6, product, 1e6 * factor, [[(jnp.ones(3),)]])
        assert (reason is None) == is_same


def test_a_leaf_that_the_function_does_not_use_stays_whole():
    dims = trace_dims(mlp, make() | {"other": jnp.ones(7)}, X)
    [width] = [width for width in dims.widths if any(str(member) == "other[0]" for member in width.members)]
    assert width.reason == "a leaf that the function does not use"


def test_verify_refuses_to_compare_what_is_not_finite():
    params = make(dead_in_second=4)
    params["a"] = params["a"].at[0, 0].set(jnp.inf)
    with pytest.raises(CompactionError, match="not finite"):
        compact_model(
            lambda p, x: (x @ p["a"] - x @ p["a"]) @ p["b"], X, variables={"a": params["a"], "b": params["b"]}
        )


def test_what_was_suspected_first_and_is_innocent_goes_all_the_same():
    """The output depends on the width of the first matrix. The search must still delete rows of the third matrix."""

    def divided(params, x):
        return mlp(params, x) / params["a"].shape[1]

    small = compact_model(divided, X, variables=make(2, 2))
    assert jax.tree.map(jnp.shape, small.variables) == {"a": (5, 8), "b": (8, 4), "c": (4, 4)}
    assert [reason.split(":")[0] for reason in small.refused.values()] == ["the constant in div depends on a size"]


def test_parameters_of_equations_are_compared_to_the_last_entry():
    """NumPy abbreviates long arrays as text, so texts of different arrays may be equal."""
    one, other = np.zeros(2000), np.zeros(2000)
    other[1000] = 1e-3
    assert str(one) == str(other)

    @dataclasses.dataclass(eq=False)
    class Params:
        array: np.ndarray

    for wrap in (lambda x: x, jnp.asarray, lambda x: {"a": (x,)}, Params):
        assert _is_same(wrap(one), wrap(one.copy()))
        assert not _is_same(wrap(one), wrap(other))
    assert not _is_same((1, 2), 1)
    assert not _is_same({"a": 1}, {"b": 1})


def test_parameters_that_only_their_text_compares_are_told_apart_too():
    class Opaque:
        def __init__(self, array):
            self.array = array

        def __str__(self):
            return str(self.array)

    one, other = np.zeros(2000), np.zeros(2000)
    other[1000] = 1e-3
    assert _is_same(Opaque(one), Opaque(one.copy()))
    assert not _is_same(Opaque(one), Opaque(other))


def test_what_no_output_depends_on_must_run_after_and_reads_nothing():
    """An auxiliary head of two layers loses the rows of removed units, but keeps its width. A mean fixes no width."""
    params = make(dead_in_second=4) | {"aux": jnp.ones((8, 7)), "last": jnp.ones((7, 2)), "other": jnp.ones((7, 2))}
    params["flat"] = jnp.ones((16, 1))
    params |= {"last": params["last"].at[:3].set(0)}

    def with_aux(params, x):
        h = jnp.tanh(x @ params["a"])
        centred = h - h.mean(-1, keepdims=True)
        _ = jnp.tanh(centred @ params["aux"]) @ params["last"]
        _ = jnp.outer(h[0], jnp.ones(2)).reshape(-1) @ params["flat"]
        return jnp.tanh(h @ params["b"]) @ params["c"]

    small = compact_model(with_aux, X, variables=params)
    shapes = {"a": (5, 4), "b": (4, 6), "c": (6, 4), "aux": (4, 7), "last": (7, 2), "other": (7, 2), "flat": (8, 1)}
    assert jax.tree.map(jnp.shape, small.variables) == shapes
    reasons = {str(member): width.reason for width in small.dims.widths for member in width.members}
    assert reasons["last[0]"] == "a leaf that no output depends on"
    assert reasons["other[0]"] == "a leaf that the function does not use"
