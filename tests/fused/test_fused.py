"""RAMDA with kernels computes the same steps as RAMDA without kernels.

The kernels of both chips run in Pallas's interpreter here.
"""

import functools
import warnings
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import GroupLasso, GroupMCP, ProximalGradient, SecularNewton, SparseGroupLasso, Target
from ramda_jax.fused import Claim, claim_leaf, claims
from ramda_jax.subproblem.running import batches
from ramda_jax.xla import tile_plans
from ramda_jax.xla.tile_plans import Chip
from tests.tiny import apply_step, normal_tree

CHIPS = get_args(Chip)
every_chip = pytest.mark.parametrize("chip", CHIPS)
# A leaf with several tiles, a leaf that is a single group, and a leaf without a kernel.
FEW = {
    "rows": ((20, 128), GroupLasso(0)),
    "whole": ((5,), GroupLasso(())),
    "concave": ((4, 3), GroupMCP(0, omega=1.0)),
}
# Every order of axes inside and between groups, odd lengths, and groups of one entry.
MANY = {
    "rows": ((9, 33), GroupLasso(0)),
    "columns": ((9, 33), GroupLasso(-1)),
    "entries": ((9, 5), GroupLasso((0, 1))),
    "whole": ((9, 5), GroupLasso(())),
    "vector": ((7,), GroupLasso(0)),
    "inputs": ((3, 3, 5, 4), GroupLasso("input")),
    "outputs": ((3, 3, 5, 4), GroupLasso("output")),
    "filters": ((3, 2, 5, 4), GroupLasso("kernel")),
    "heads": ((6, 3, 4), GroupLasso(1)),
    "stack": ((2, 7, 9), GroupLasso((0, 2))),
    "alternate": ((2, 3, 4, 5), GroupLasso((1, 3))),
    "sparse": ((6, 9), SparseGroupLasso(0, l1_ratio=0.3)),
    "positive": ((6, 9), GroupLasso(0, non_negative=True)),
    "scaled": ((6, 9), 0.5 * GroupLasso(0, group_weight="sqrt_layer_size")),
    "many": ((150, 140), GroupLasso(1)),
}
SETTINGS = {
    "plain": {},
    "scheduled": {
        "averaging": optax.linear_schedule(0.3, 0.9, 4),
        "strength": optax.linear_schedule(0.2, 0.5, 4),
        "restarts": (2,),
        "eps": optax.linear_schedule(1e-3, 1e-5, 4),
    },
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Makes tiles as small as the chips allow."""
    monkeypatch.setattr(tile_plans, "WANTED", dict.fromkeys(CHIPS, 1))


@pytest.fixture
def two_passes(monkeypatch):
    """Uses the default of accelerators, two passes, on this machine."""
    monkeypatch.setattr(batches, "by_platform", lambda cpu, other, like: other())


def optimizer(leaves, fused=False, **settings):
    regularizers = {f"^{name}$": regularizer for name, (_, regularizer) in leaves.items()}
    return ramda_jax.ramda(0.3, regularizers, **{"strength": 0.4, "averaging": 1.0, "fused": fused, **settings})


def tree(leaves, dtype, seed=0):
    return normal_tree({name: shape for name, (shape, _) in leaves.items()}, dtype, seed)


def paths(leaves, chip, dtype, num_steps=4, **settings):
    """(params, state) after each step: without kernels, with them, and with kernels that write the parameters."""
    plain, fused = (optimizer(leaves, kernels, **settings) for kernels in (False, chip))
    steps = [jax.jit(functools.partial(apply_step, plain)), jax.jit(functools.partial(apply_step, fused))]
    steps.append(jax.jit(ramda_jax.fused_step(fused)))
    params = tree(leaves, dtype)
    found = [[(params, plain.init(params))], [(params, fused.init(params))], [(params, fused.init(params))]]
    for number in range(num_steps):
        gradients = tree(leaves, dtype, seed=1 + number // 2)
        for step, path in zip(steps, found, strict=True):
            params, state = path[-1]
            path.append(step(gradients, state, params))
    return found


def as_numpy(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def check_close(one, other, rtol):
    """Checks that the zeros are equal, and other entries within `rtol` times the leaf's largest entry."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(lambda x, y: (x.dtype, x.shape) == (y.dtype, y.shape) or pytest.fail(f"{x} {y}"), one, other)

    def check(x, y):
        np.testing.assert_array_equal(x == 0, y == 0)
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * np.max(np.abs(y), initial=0))

    jax.tree.map(check, as_numpy(one), as_numpy(other))


def check_paths(leaves, chip, dtype, **settings):
    plain, *with_kernels = paths(leaves, chip, dtype, **settings)
    zeros = [sum(int((radii == 0).sum()) for radii in state[1].radii.values()) for _, state in plain]
    assert 0 < zeros[-1] < sum(radii.size for radii in plain[-1][1][1].radii.values())
    for path in with_kernels:
        for (params, state), (expected, of_chain) in zip(path[1:], plain[1:], strict=True):
            # Each step rounds once to half precision.
            rtol = 2e-6 if dtype == jnp.float32 else 2**-7
            check_close(params, expected, rtol)
            check_close(state[0], of_chain[0], rtol)
            check_close(state[1].radii, of_chain[1].radii, rtol)
            check_close(state[2], of_chain[2], rtol)


@pytest.mark.slow_except("tpu-float32")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@every_chip
def test_the_path_with_kernels_is_that_without(chip, dtype):
    check_paths(FEW, chip, dtype, **SETTINGS["scheduled"])


# Tiles depend on shapes and axes only, so one dtype is enough here.
@pytest.mark.slow
@every_chip
def test_the_path_with_kernels_is_that_without_for_all_axes(chip):
    check_paths(MANY, chip, jnp.float32, **SETTINGS["plain"])


ROWS = {"rows": ((6, 5), GroupLasso(0))}


def one_step(leaves, gradients, chip, **settings):
    """(params, state) after one eager step from zero with kernels, and after the same step without kernels."""
    params = jax.tree.map(jnp.zeros_like, gradients)
    found = []
    for kernels in (chip, False):
        method = optimizer(leaves, kernels, **settings)
        found.append(apply_step(method, gradients, method.init(params), params))
    return found


def test_no_square_leaves_the_range_and_a_nan_stays_in_its_group():
    scales = jnp.asarray([1e-25, 1e-12, 1.0, 1e12, 1e18, jnp.nan])[:, None]
    gradients = {"rows": tree(ROWS, jnp.float32)["rows"] * scales}
    (params, state), (expected, _) = one_step(ROWS, gradients, "tpu", strength=0.0)
    np.testing.assert_allclose(params["rows"], expected["rows"], rtol=1e-5)
    assert np.isnan(params["rows"]).any(axis=1).tolist() == [False] * 5 + [True]
    (params, state), (expected, _) = one_step(ROWS, gradients, "tpu", strength=1e-6)
    np.testing.assert_allclose(params["rows"], expected["rows"], rtol=1e-5)
    assert not state[1].info.converged


def test_what_two_passes_leave_is_bounded_and_the_next_steps_finish_it(two_passes):
    """If the metric spans many decades within a group, two passes are not enough, with or without kernels."""
    decades = {"rows": jnp.asarray(10.0 ** np.random.default_rng(0).uniform(-6, 4, (6, 5)), jnp.float32)}
    (params, state), (_, expected) = one_step(ROWS, decades, "tpu", strength=1e-3)
    info, of_default = state[1].info, expected[1].info
    assert not info.converged and not of_default.converged
    assert info.num_steps == of_default.num_steps == 2
    np.testing.assert_allclose(info.residual, of_default.residual, rtol=1e-3)
    assert 0 < info.residual < np.inf
    step = jax.jit(ramda_jax.fused_step(optimizer(ROWS, "tpu", strength=1e-3)))
    nothing = jax.tree.map(jnp.zeros_like, params)
    for _ in range(2):
        params, state = step(nothing, state, params)
    assert state[1].info.converged


@every_chip
def test_an_anchor_of_a_narrower_dtype_is_read_and_written_as_such(chip):
    settings = SETTINGS["scheduled"] | {"anchor_dtype": jnp.bfloat16}
    plain, *with_kernels = paths(ROWS, chip, jnp.float32, num_steps=4, **settings)
    for path in with_kernels:
        for (params, state), (expected, of_chain) in zip(path[1:], plain[1:], strict=True):
            assert {anchor.dtype for anchor in jax.tree.leaves(state[0].anchor)} == {jnp.dtype("bfloat16")}
            jax.tree.map(np.testing.assert_array_equal, as_numpy(state[0].anchor), as_numpy(of_chain[0].anchor))
            check_close(params, expected, 2e-6)
            check_close(state[0], of_chain[0], 2e-6)


def test_an_iterate_in_the_state_is_averaged_there():
    settings = {"iterate_dtype": jnp.float32, "averaging": 0.25}
    plain, *with_kernels = paths(ROWS, "gpu", jnp.bfloat16, num_steps=2, **settings)
    for path in with_kernels:
        check_close(path[-1][1][2], plain[-1][1][2], 2e-6)
        check_close(path[-1][0], plain[-1][0], 2**-7)


WRAPPERS = {
    "chain": lambda method: optax.chain(optax.clip(0.5), method()),
    "inject_hyperparams": lambda method: optax.inject_hyperparams(method)(),
    "masked": lambda method: optax.masked(method(), {"rows": True, "whole": False}),
    "MultiSteps": lambda method: optax.MultiSteps(method(), 1),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_update_has_kernels_in_optax_wrappers(wrapper):
    leaves = {name: FEW[name] for name in ("rows", "whole")}

    def of(fused):
        def method(learning_rate=0.3):
            regularizers = {"rows": FEW["rows"][1], "whole": None}
            return ramda_jax.ramda(learning_rate, regularizers, 0.4, averaging=1.0, fused=fused)

        return WRAPPERS[wrapper](method)

    params = tree(leaves, jnp.float32)
    found = []
    for method in (of("gpu"), of(False)):
        step = functools.partial(apply_step, method)
        state = method.init(params)
        found.append((step(params, state, params)[0], str(jax.make_jaxpr(step)(params, state, params))))
    (with_kernels, program), (expected, plain) = found
    assert "pallas_call" in program and "pallas_call" not in plain
    check_close(with_kernels, expected, 2e-6)


def test_many_runs_at_once_by_vmap():
    method = optimizer(ROWS, "tpu")
    gradients = {"rows": jnp.stack([tree(ROWS, jnp.float32, seed)["rows"] for seed in (1, 2)])}
    params = jax.tree.map(jnp.zeros_like, gradients)
    state = jax.vmap(method.init)(params)
    found, _ = jax.jit(jax.vmap(ramda_jax.fused_step(method)))(gradients, state, params)
    for i in range(2):
        (_, (expected, _)) = one_step(ROWS, jax.tree.map(lambda g, i=i: g[i], gradients), "tpu")
        np.testing.assert_allclose(found["rows"][i], expected["rows"], rtol=2e-6, atol=1e-7)


def test_on_a_cpu_the_program_is_that_without_kernels():
    params = tree(ROWS, jnp.float32)
    found = []
    for kernels in (False, True):
        method = optimizer(ROWS, kernels)
        step = jax.jit(functools.partial(apply_step, method))
        found.append(step(params, method.init(params), params))
        if kernels:
            found.append(jax.jit(ramda_jax.fused_step(method))(params, method.init(params), params))
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, found[0])


def lowered(leaves, platform, runs=None, **settings):
    """The program of a step that writes the parameters, for the devices of another platform."""
    method, params = optimizer(leaves, True, **settings), tree(leaves, jnp.float32)
    state, step = method.init(params), ramda_jax.fused_step(method)
    if runs is not None:
        params, state = jax.tree.map(lambda x: jnp.stack([x] * runs), (params, state))
        step = jax.vmap(step)
    step = jax.jit(step, donate_argnums=(1, 2))
    kind = jax.sharding.AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=kind)  # since JAX 0.12 lowering asks for the GPU's kind
    with jax.sharding.use_abstract_mesh(mesh), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated")  # since JAX 0.12
        return step.trace(params, state, params).lower(lowering_platforms=(platform,)).as_text()


def kernel_calls(program, name):
    return [line for line in program.splitlines() if "stablehlo.custom_call" in line and name in line]


every_platform = pytest.mark.parametrize("platform, name", [("tpu", "tpu_custom_call"), ("cuda", "triton")])


@pytest.mark.parametrize("restarts", [(), (3,)], ids=["one stage", "stages"])
@every_platform
def test_there_is_one_kernel_for_a_leaf_and_it_writes_the_state_in_place(platform, name, restarts):
    leaves = {name: FEW[name] for name in ("rows", "concave")}
    (call,) = kernel_calls(lowered(leaves, platform, restarts=restarts), name)
    # The kernel writes V, U, the parameters, and with stages W_0.
    assert call.count("output_operand_alias<") == 3 + len(restarts)
    assert not kernel_calls(lowered(leaves, "cpu", restarts=restarts), name)


@every_platform
def test_under_vmap_there_is_one_kernel_for_all_runs(platform, name):
    assert len(kernel_calls(lowered(ROWS, platform, runs=3), name)) == 1


def test_leaves_on_several_devices_have_no_kernel():
    method = optimizer(ROWS, "tpu")

    def has_kernel(num_devices):
        mesh = jax.sharding.AbstractMesh((num_devices,), ("devices",))
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        params = {"rows": jax.ShapeDtypeStruct((6, 5), jnp.float32, sharding=whole)}
        state = jax.eval_shape(method.init, params)
        return "pallas_call" in str(jax.jit(ramda_jax.fused_step(method)).trace(params, state, params).jaxpr)

    assert has_kernel(1) and not has_kernel(2)


def test_leaves_of_a_target_have_no_kernel_and_the_others_do():
    leaves = {"rows": ROWS["rows"], "other": ((4, 3), GroupLasso(0))}  # equal shapes would share a program
    strength = {"rows": 0.1, "other": Target(0.5, hold=9)}
    method, params = optimizer(leaves, "tpu", strength=strength), tree(leaves, jnp.float32)
    state = method.init(params)
    assert str(jax.make_jaxpr(ramda_jax.fused_step(method))(params, state, params)).count("pallas_call[") == 1
    expected = optimizer(leaves, strength=strength)
    (found, state), (wanted, of_chain) = (
        ramda_jax.fused_step(method)(params, state, params),
        apply_step(expected, params, expected.init(params), params),
    )
    check_close((found, state[1].radii, state[1].strength), (wanted, of_chain[1].radii, of_chain[1].strength), 2e-6)


SHAPE = jax.ShapeDtypeStruct((6, 5), jnp.float32)


@pytest.mark.parametrize(
    "regularizer, solver, leaf, reason",
    [
        (None, None, SHAPE, "no regularizer"),
        (GroupMCP((0,), omega=1.0), SecularNewton(), SHAPE, "GroupMCP is not a group LASSO"),
        (2.0 * ramda_jax.NuclearNorm(), None, SHAPE, "NuclearNorm is not a group LASSO"),
        (
            GroupLasso((0,), group_weight=np.ones((6, 1))),
            SecularNewton(),
            SHAPE,
            "its groups have weights of their own",
        ),
        (GroupLasso((0,)), ProximalGradient(), SHAPE, "its solver is ProximalGradient"),
        (GroupLasso((0,)), SecularNewton(strict=True), SHAPE, "its solver is SecularNewton(max_steps=40, strict=True)"),
        (GroupLasso((0,)), SecularNewton(), jax.ShapeDtypeStruct((6, 5), jnp.float16), "its dtype is float16"),
        (GroupLasso((0,)), SecularNewton(), jax.ShapeDtypeStruct((6, 0), jnp.float32), "it is empty"),
        (GroupLasso((1,)), SecularNewton(), jax.ShapeDtypeStruct((2**20, 2), jnp.float32), "groups of 1,048,576"),
    ],
)
def test_what_has_no_kernel_says_why(regularizer, solver, leaf, reason):
    for chip in CHIPS:
        found = claim_leaf(leaf, regularizer, solver, chip)
        assert isinstance(found, str) and found.startswith(reason)
    assert isinstance(claim_leaf(SHAPE, GroupLasso((0,)), SecularNewton(), "tpu"), Claim)


def test_without_pallas_for_the_chip_a_leaf_has_no_kernel(monkeypatch):
    monkeypatch.setattr(claims, "has_backend", lambda chip: chip == "tpu")
    found = [claim_leaf(SHAPE, GroupLasso((0,)), SecularNewton(), chip) for chip in ("tpu", "gpu")]
    assert isinstance(found[0], Claim) and found[1] == "this JAX has no Pallas for such a chip"


def test_in_the_64_bit_mode_a_tpu_has_no_kernel(x64):
    del x64
    found = [claim_leaf(SHAPE, GroupLasso((0,)), SecularNewton(), chip) for chip in ("tpu", "gpu")]
    assert "64-bit mode" in str(found[0]) and isinstance(found[1], Claim)


def test_gradients_of_another_dtype_have_no_kernel():
    method, params = optimizer(ROWS, "tpu"), tree(ROWS, jnp.float32)
    step = functools.partial(ramda_jax.fused_step(method), state=method.init(params), params=params)
    has_kernel = [
        "pallas_call" in str(jax.make_jaxpr(step)(jax.tree.map(lambda p, d=dtype: p.astype(d), params)))
        for dtype in (jnp.bfloat16, jnp.float16, jnp.int32)
    ]
    assert has_kernel == [True, False, False]


def test_what_is_no_chip_is_refused():
    with pytest.raises(ValueError, match=r"`fused` must be a bool or one of .*, got 'h100'; use True"):
        optimizer(ROWS, "h100")


def test_the_parts_checks_hold_with_kernels():
    method, params = optimizer(ROWS, "tpu"), tree(ROWS, jnp.float32)
    ramda_jax.check_last(method, params)
    state = method.init(params)
    with pytest.raises(ValueError, match="params"):
        method.update(params, state)
    with pytest.raises(ValueError, match="must be one of this optimizer's regularizer"):
        optimizer({"rows": ((6, 5), GroupLasso(1))}, "tpu").update(params, state, params)
    with pytest.raises(ValueError, match="AdaptiveDualAveragingState"):
        method.update(params, (state[1], state[0], state[2]), params)


def test_only_ramda_with_kernels_has_a_fused_step():
    plain = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), strength=0.1)
    with pytest.raises(TypeError, match=r"must be RAMDA with kernels, got .*; give `ramda"):
        ramda_jax.fused_step(plain)
    with pytest.raises(TypeError, match="must be RAMDA with kernels"):
        ramda_jax.fused_step(optax.chain(optimizer(ROWS, "tpu")))


def test_describe_says_which_leaves_have_kernels():
    params = {"rows": SHAPE, "concave": SHAPE, "bias": jax.ShapeDtypeStruct((5,), jnp.float32)}
    regularizers = {"rows": GroupLasso(0), "concave": GroupMCP(0, omega=1.0)}
    lines = ramda_jax.describe(regularizers, params, fused="gpu").splitlines()
    assert lines[-2:] == ["concave: no kernel, GroupMCP is not a group LASSO", "rows: kernel, tile 1 x 8"]
    rmda = ramda_jax.describe(regularizers, params, method=ramda_jax.rmda, fused="gpu").splitlines()
    assert rmda[-1] == "no kernels: rmda has none"
