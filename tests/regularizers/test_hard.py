"""Hard targets: the minimum over all supports, ties, schedules, all leaves together, and training."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax as rj
from ramda_jax import metrics
from ramda_jax.numerics import largest, sort_keys
from tests.tiny import normal_tree, train

pytestmark = pytest.mark.covering

DTYPES = [np.float32, np.float64]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
NUM = 1000
SHAPE = (4, 3)


def supports(labels, alive):
    """The masks of all sets of `alive` blocks, where a block has equal labels."""
    return [np.isin(labels, chosen) for chosen in itertools.combinations(np.unique(labels), alive)]


ROWS, ENTRIES = np.arange(4)[:, None] + np.zeros(SHAPE, int), np.arange(12).reshape(SHAPE)
COLUMN = supports(np.arange(4), 2)
# Regularizers, and the masks of entries that may be alive, made by hand.
BRUTE = {
    "TopGroups": (rj.TopGroups(0.5), supports(ROWS, 2)),
    "TopGroups of columns": (rj.TopGroups(0.5, groups="output"), supports(ENTRIES % 3, 1)),
    "TopGroups of entries": (rj.TopGroups(0.8, groups=(0, 1)), supports(ENTRIES, 2)),
    "TopEntries": (rj.TopEntries(0.7), supports(ENTRIES, 3)),
    "NofM": (rj.NofM(2, 4), [np.stack(masks, axis=1) for masks in itertools.product(COLUMN, repeat=3)]),
}


def mixed_scales(dtype, num=NUM):
    """(rhs, metric) over many decades: in float32 squares of rhs overflow and underflow, but rhs / metric does not."""
    rng = np.random.default_rng(7)
    metric = 10.0 ** (rng.uniform(-12, 12, size=(num, 1, 1)) + rng.uniform(-3, 0, size=(num, *SHAPE)))
    spread = 10.0 ** rng.uniform(-4, 0, size=(num, *SHAPE)) ** rng.choice([0, 1], size=(num, 1, 1))
    level = 10.0 ** rng.uniform(-17, 20, size=(num, 1, 1))
    return np.asarray(rng.normal(size=(num, *SHAPE)) * spread * level, dtype), np.asarray(metric, dtype)


@every_dtype
@pytest.mark.parametrize("name", BRUTE)
def test_none_of_a_thousand_minima_is_above_the_lowest_of_all_supports(name, dtype):
    regularizer, masks = BRUTE[name]
    rhs, metric = mixed_scales(dtype)
    with jax.enable_x64(dtype == np.float64):
        regularizer = regularizer.resolve("dense/kernel", SHAPE)
        found = np.asarray(jax.jit(jax.vmap(lambda r, d: regularizer.solve_scaled(r, d, 1.0)))(rhs, metric))
        free = rhs / metric
        assert np.all(np.isfinite(free)) and np.all(free != 0)
    # Entries are not shrunk, up to the rounding of a division, or exactly zero.
    np.testing.assert_allclose(found, np.where(found == 0, 0, free), rtol=4 * np.finfo(dtype).eps)
    flat = (found != 0).reshape(NUM, -1)
    allowed = np.array(masks).reshape(len(masks), -1)
    assert np.all(np.any(np.all(flat[:, None] == allowed, axis=2), axis=1))
    gains = (rhs.astype(np.longdouble) ** 2 / metric.astype(np.longdouble) / 2).reshape(NUM, -1)
    best = np.max(gains @ allowed.T.astype(np.longdouble), axis=1)
    assert np.sum(np.sum(gains * flat, axis=1) < best * (1 - 8 * np.finfo(dtype).eps)) == 0


def test_equal_gains_are_kept_by_their_index():
    ones = jnp.ones((4, 4))
    expected = np.zeros((4, 4))
    expected[:2] = 1
    np.testing.assert_array_equal(rj.TopGroups(0.5).prox(ones, 1.0), expected)
    np.testing.assert_array_equal(rj.TopEntries(0.5).prox(ones, 1.0), expected)
    np.testing.assert_array_equal(rj.NofM(2, 4).prox(-ones, 1.0), -expected)
    np.testing.assert_array_equal(rj.NofM(2, 4, axis=-1).prox(ones, 1.0), expected.T)
    # A larger entry comes first, at any index.
    mixed = ones.at[3, 3].set(2.0)
    assert np.argwhere(rj.TopEntries(0.75).prox(mixed, 1.0)).tolist() == [[0, 0], [0, 1], [0, 2], [3, 3]]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 6), (2, 3, 4)])
def test_largest_are_those_of_a_stable_sort(shape):
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=shape), rng.integers(0, 3, size=shape), np.zeros(shape)):
        keys = sort_keys(jnp.asarray(values, jnp.float32))
        order = np.argsort(-np.abs(np.ravel(values)), kind="stable")
        for number in range(keys.size + 1):
            expected = np.isin(np.arange(keys.size), order[:number]).reshape(shape)
            np.testing.assert_array_equal(largest([keys], number)[0], expected)


@pytest.mark.parametrize(
    ("share", "total", "zeros"), [(0.5, 3, 2), (0.07, 100, 7), (0.1, 3, 1), (0.0, 5, 0), (1, 5, 5)]
)
def test_the_number_of_zeros_is_rounded_up_and_is_that_of_a_schedule(share, total, zeros):
    x = jnp.arange(1.0, total + 1)
    for given in (share, lambda step: share):
        target = rj.TopEntries(given).at_step(jnp.array(3))
        assert int(np.sum(np.asarray(target.prox(x, 1.0)) == 0)) == zeros
    assert np.isinf(rj.TopEntries(share).value(x)) == (zeros > 0)


@pytest.mark.parametrize("m", [2, 4, 20])
def test_nofm_along_any_axis_is_a_sort_of_every_block(m):
    x = np.random.default_rng(0).normal(size=(m, 3, 2 * m)).astype(np.float32)
    for axis in (0, 2):
        for n in (0, 1, m):
            blocks = np.moveaxis(x, axis, -1).reshape(-1, m)
            ranks = np.argsort(np.argsort(-np.abs(blocks), axis=1), axis=1)
            kept = np.where(ranks < n, blocks, 0).reshape(np.moveaxis(x, axis, -1).shape)
            np.testing.assert_array_equal(rj.NofM(n, m, axis).prox(x, 1.0), np.moveaxis(kept, -1, axis))


def test_every_nan_is_kept():
    x = jnp.full((4, 4), jnp.nan).at[0, 0].set(1.0)
    for regularizer in (rj.TopGroups(0.75), rj.TopEntries(0.75), rj.NofM(1, 4), rj.TopEntries(1.0), rj.NofM(0, 4)):
        np.testing.assert_array_equal(np.isnan(regularizer.prox(x, 1.0)), np.isnan(x))


METHODS = {"ramda": rj.ramda, "rmda": rj.rmda, "prox_adamw": rj.prox_adamw}
SHAPES = {"first": {"kernel": (8, 6), "bias": (6,)}, "second": {"kernel": (12, 4)}}


def settings(method):
    return {} if method == "prox_adamw" else {"averaging": 1.0}


def gradient(params):
    return jax.tree.map(jnp.sin, params)


TRAINED = {
    "TopGroups": (rj.TopGroups(0.5), {"first/kernel": 4, "second/kernel": 6}),
    "TopEntries": (rj.TopEntries(0.75), {"first/kernel": 12, "second/kernel": 12}),
    "NofM": (rj.NofM(2, 4), {"first/kernel": 24, "second/kernel": 24}),
    "TopGroups of all": (rj.TopGroups(0.75, over="all"), 5),
    "TopEntries of all": (rj.TopEntries(0.75, over="all"), 24),
}


@pytest.mark.parametrize(
    ("name", "method", "dtype"),
    [(name, "ramda", "float32") for name in TRAINED]
    + [("TopGroups", "rmda", "float32"), ("TopEntries of all", "rmda", "float32"), ("NofM", "prox_adamw", "float32")]
    + [("TopGroups of all", "prox_adamw", "float32"), ("TopGroups", "ramda", "bfloat16"), ("NofM", "rmda", "bfloat16")],
)
def test_the_structure_is_exact_from_the_first_step(name, method, dtype):
    regularizer, expected = TRAINED[name]
    optimizer = METHODS[method](0.1, regularizer, strength=1e-3, **settings(method))
    params = normal_tree(SHAPES, dtype)
    for num_steps in (1, 3):
        found, state = train(optimizer, gradient, params, num_steps)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(found))
        alive = {path: int(jnp.sum(mask)) for path, mask in metrics.support(regularizer, found).items()}
        assert (alive if isinstance(expected, dict) else sum(alive.values())) == expected
        assert bool(rj.solver_info(state).converged)
        np.testing.assert_array_equal(found["first"]["bias"] != 0, True)
        structured = rj.eval_params(state, found)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a != 0, b != 0), structured, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TopGroups", "TopEntries of all", "NofM"])
def test_eager_steps_are_those_of_jit(name):
    optimizer = rj.ramda(0.1, TRAINED[name][0], strength=1.0, averaging=1.0)
    params = normal_tree(SHAPES)
    expected, _ = train(optimizer, gradient, params, 2)
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, expected)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a != 0, b != 0), params, expected)


@pytest.mark.parametrize("over", ["leaf", "all"])
def test_a_share_that_is_a_schedule_is_a_ramp(over):
    regularizer = rj.TopGroups(optax.linear_schedule(0.0, 1.0, 4), over=over)
    optimizer = rj.ramda(0.1, regularizer, strength=1.0, averaging=1.0)
    params = normal_tree(SHAPES)
    state, shares = optimizer.init(params), []
    step = jax.jit(optimizer.update)
    for _ in range(6):
        updates, state = step(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        shares.append(float(metrics.group_sparsity(regularizer, params)))
    assert shares == [0, 0.25, 0.5, 0.75, 1, 1]
    np.testing.assert_array_equal(rj.eval_params(state, params)["first"]["kernel"], 0)


@pytest.mark.slow_except("float32")
@every_dtype
def test_over_all_leaves_is_what_one_leaf_of_them_has(dtype):
    # Cut a leaf into three leaves. Together they must have the solution of the whole leaf.
    rng = np.random.default_rng(0)
    linear, metric = rng.normal(size=(20, 5)).astype(dtype), rng.uniform(0.1, 3, size=(20, 5)).astype(dtype)
    cut = [slice(0, 3), slice(3, 14), slice(14, 20)]

    def solve(regularizer, tree):
        with jax.enable_x64(dtype == np.float64):
            model = rj.QuadraticModel(tree(linear), tree(0 * linear), tree(metric), np.asarray(1, dtype))
            optimizer = rj.proximal_point({"": regularizer}, 1.0)
            return jax.jit(optimizer.update)(model, optimizer.init(model.anchor), model.anchor)[0]

    for kind, share, alive in ((rj.TopGroups, 0.37, 12), (rj.TopEntries, 0.9, 10)):
        whole = np.asarray(solve(kind(share), lambda x: {"a": x})["a"])
        parts = solve(kind(share, over="all"), lambda x: {str(i): x[rows] for i, rows in enumerate(cut)})
        np.testing.assert_array_equal(np.concatenate([parts[str(i)] for i in range(3)]), whole)
        assert np.sum(np.any(whole != 0, axis=1) if kind is rj.TopGroups else whole != 0) == alive


def test_leaves_of_different_shares_do_not_compete():
    params = normal_tree({"a": (8, 2), "b": (8, 2), "c": (8, 2)})
    regularizer = {"a|b": rj.TopGroups(0.75, over="all"), "c": rj.TopGroups(0.25, over="all")}
    found, _ = train(rj.rmda(0.1, regularizer, strength=1.0, averaging=1.0), gradient, params, 1)
    alive = {path: int(jnp.sum(mask)) for path, mask in metrics.support(regularizer, found).items()}
    assert alive["a"] + alive["b"] == 4 and alive["c"] == 6


def test_without_a_weight_there_is_no_constraint():
    params = normal_tree(SHAPES)
    for regularizer in (rj.TopGroups(0.5), rj.TopEntries(0.5, over="all"), rj.NofM(2, 4)):
        found, _ = train(rj.ramda(0.1, regularizer, strength=0.0, averaging=1.0), gradient, params, 1)
        expected, _ = train(rj.ramda(0.1, averaging=1.0), gradient, params, 1)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_a_leaf_of_all_has_no_psi_of_its_own():
    x = jnp.ones((4, 3))
    for target in (rj.TopGroups(0.5, over="all"), rj.TopEntries(0.5, over="all")):
        for call in (lambda target=target: target.prox(x, 1.0), lambda target=target: target.value(x)):
            with pytest.raises(ValueError, match=r"a psi only for all leaves together, .*or use over='leaf'"):
                call()
        with pytest.raises(ValueError, match=r"ProximalGradient cannot solve .* one of all leaves together"):
            rj.ramda(0.1, target, 1.0, solver=rj.ProximalGradient())
    with pytest.raises(ValueError, match=r"is a function of the step; use `at_step\(step\)`"):
        rj.TopGroups(lambda step: 0.5).prox(x, 1.0)


def test_describe_names_groups_and_the_closed_form():
    table = rj.describe({"first/kernel": rj.TopGroups(0.5), "second": rj.NofM(2, 4)}, normal_tree(SHAPES))
    assert "TopGroups    (0,)             8     6       -  ClosedForm" in table
    assert "NofM         -                -     -       -  ClosedForm" in table


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: rj.TopGroups(1.5), ValueError, r"`share` must be in \[0, 1\], got 1\.5; use 0\.9"),
        (lambda: rj.TopEntries(-0.1), ValueError, r"`share` must be in \[0, 1\], got -0.1; use 0.9"),
        (lambda: rj.TopEntries("half"), TypeError, "`share` must be a real number or a schedule, got 'half'"),
        (lambda: rj.TopEntries(jnp.array(0.5)), TypeError, "`share` must be a Python number or a schedule"),
        (lambda: rj.TopGroups(0.5, over="layers"), ValueError, r"`over` must be one of .*got 'layers'; use 'leaf'"),
        (lambda: rj.TopGroups(0.5, "rows"), ValueError, "`groups` must be a known name or axes, got 'rows'"),
        (lambda: rj.NofM(5, 4), ValueError, "`n` must be at most `m`, got n=5 and m=4"),
        (lambda: rj.NofM(-1, 4), ValueError, "`n` must be at least 0, got -1"),
        (lambda: rj.NofM(0, 0), ValueError, "`m` must be at least 1, got 0"),
        (lambda: rj.NofM(2, 4.0), TypeError, "`m` must be a whole number, got 4.0"),
        (lambda: rj.NofM(2, 4, axis="input"), TypeError, "`axis` must be a whole number, got 'input'; use -2"),
        (lambda: rj.NofM(2, 4).resolve("dense/kernel", (6, 8)), ValueError, r"`m=4` must divide .* 'dense/kernel'"),
        (lambda: rj.NofM(2, 4).resolve("bias", (8,)), ValueError, "`axis=-2` must be an axis of the leaf 'bias'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_remedy(make, error, match):
    with pytest.raises(error, match=match):
        make()
