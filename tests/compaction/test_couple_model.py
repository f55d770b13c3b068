"""Coupled groups in one call, used with the model's own parameters."""

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ramda_jax
from ramda_jax import GroupLasso, compaction, metrics
from ramda_jax.compaction import CompactionError, couple, couple_model, freeze_structure, trace_dims
from ramda_jax.structure import named_leaves
from tests import tiny

IMAGES = jax.random.normal(jax.random.key(0), (16, 8, 8, 1))
LABELS = jax.random.normal(jax.random.key(1), (16, 3))


class ConvNet(nnx.Module):
    """A net with convolutions, a flatten, dense layers, and batch statistics beside the parameters."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv1, self.norm = nnx.Conv(1, 6, (3, 3), strides=2, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)
        self.conv2 = nnx.Conv(6, 8, (3, 3), strides=2, rngs=rngs)
        self.dense1, self.dense2 = nnx.Linear(2 * 2 * 8, 12, rngs=rngs), nnx.Linear(12, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv2(nnx.relu(self.norm(self.conv1(x), use_running_average=True))))
        return self.dense2(nnx.relu(self.dense1(x.reshape(x.shape[0], -1))))


def normed(params, x):
    """A function without a free width, because statistics run over the only hidden width."""
    h = x @ params["a"]
    return (h / jnp.sqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-6)) @ params["b"]


@pytest.fixture(scope="module")
def trained():
    """(model, coupling, state) of an nnx model after some steps of its optimizer, with zeros in W_hat but not in W."""
    model = ConvNet()
    coupling = couple_model(model, IMAGES)
    method = ramda_jax.ramda(3e-2, coupling.regularizer(), strength=5e-3, averaging=0.5)
    optimizer = nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(1e3), coupling.wrap(method)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        grads = nnx.grad(lambda model: jnp.mean((model(IMAGES) - LABELS) ** 2))(model)
        optimizer.update(model, grads)

    for _ in range(60):
        step(model, optimizer)
    return model, coupling, optimizer.opt_state


def zero_groups(coupling, params):
    """A mask of the zero groups of each width, by definition: all rows of all readers are zero."""
    leaves = {path: np.asarray(leaf) for path, leaf in named_leaves(params)}
    found = {}
    for name, parts in coupling.parts.items():
        rows = [np.moveaxis(leaves[part.path], part.axis, 0)[part.rows] != 0 for part in parts]
        found[name] = ~np.any([row.reshape(len(row), -1).any(1) for row in rows], axis=0)
    return found


def test_one_call_couples_a_conv_net_with_a_flatten():
    model = ConvNet()
    coupling = couple_model(model, IMAGES)
    params = nnx.state(model, nnx.Param)
    same = couple(trace_dims(model, IMAGES), params)
    assert coupling == same and hash(coupling) == hash(same)
    assert str(coupling).splitlines()[2].split() == ["d3", "8", "48", "dense1/kernel[0]", "x4"]
    assert str(coupling).splitlines()[4:] == [
        "without groups: d1 d2 d4 d5 (conv_general_dilated slides over it); d7 (the model's output)"
    ]
    assert repr(coupling) == "Coupling(d0: 6 groups of 72, d3: 8 groups of 48, d6: 12 groups of 3)"
    assert coupling != couple_model(model, IMAGES, overrides={"conv1/bias": ("frozen",)})


def test_eval_params_takes_and_returns_the_models_own_parameters(trained):
    model, coupling, state = trained
    params = nnx.state(model, nnx.Param)
    structured = ramda_jax.eval_params(state, params)
    assert jax.tree.structure(structured) == jax.tree.structure(params)
    by_hand = coupling.unpack(ramda_jax.eval_params(state, coupling.pack(params)), params)
    for (path, own), (_, other) in zip(named_leaves(structured), named_leaves(by_hand), strict=True):
        assert jnp.array_equal(own, other), path
    # The structured point has zero groups, and W has none yet.
    alive = zero_groups(coupling, structured)
    assert all(found.any() and not found.all() for found in alive.values())
    assert not any(found.any() for found in zero_groups(coupling, params).values())
    # It also takes the statistics beside the parameters, and does not change them.
    everything = ramda_jax.eval_params(state, nnx.state(model))
    leaves = dict(named_leaves(everything))
    assert all(jnp.array_equal(leaves[path], leaf) for path, leaf in named_leaves(structured))
    assert jnp.array_equal(leaves["norm/var"], model.norm.var[...])


def test_metrics_describe_and_the_certificate_take_the_models_own_parameters(trained):
    model, coupling, state = trained
    params = nnx.state(model, nnx.Param)
    structured, regularizer = ramda_jax.eval_params(state, params), coupling.regularizer()
    zero = zero_groups(coupling, structured)
    support = metrics.support(regularizer, structured)
    assert {name: (~np.asarray(support[f"coupled/{name}"]).ravel()).tolist() for name in zero} == {
        name: found.tolist() for name, found in zero.items()
    }
    share = sum(found.sum() for found in zero.values()) / sum(found.size for found in zero.values())
    assert float(metrics.group_sparsity(regularizer, structured)) == pytest.approx(share)
    assert float(metrics.weighted_group_sparsity(regularizer, structured)) > 0
    assert "coupled/d3" in metrics.layer_table(regularizer, structured)
    packed = coupling.pack(structured)
    assert float(metrics.objective(regularizer, structured, 0.0, 1.0)) == pytest.approx(
        float(metrics.objective(dict(regularizer), packed, 0.0, 1.0))
    )
    grads = jax.tree.map(jnp.ones_like, params)
    assert float(metrics.stationarity(regularizer, 1.0, grads, params)) == pytest.approx(
        float(metrics.stationarity(dict(regularizer), 1.0, coupling.pack(grads), coupling.pack(params)))
    )
    text = ramda_jax.describe(regularizer, structured)
    assert "d3          8    48  dense1/kernel[0] x4" in text
    number = int(zero["d3"].sum())
    assert f"coupled/d3: {number} zero groups, {number} of 8 units removable" in text
    certificate = metrics.certificate(state, params)
    assert set(certificate.bound) == {f"coupled/{name}" for name in coupling.parts}
    shrunk = ramda_jax.prox(regularizer, params, 1e9, metric=2.0)
    assert all(found.all() for found in zero_groups(coupling, shrunk).values())
    assert jnp.array_equal(dict(named_leaves(shrunk))["conv1/kernel"], model.conv1.kernel[...])


def test_zeros_are_held_by_the_models_own_parameters(trained):
    model, coupling, state = trained
    params = nnx.state(model, nnx.Param)
    structured = ramda_jax.eval_params(state, params)
    zero = zero_groups(coupling, structured)
    for held in (freeze_structure(structured, coupling.regularizer()), freeze_structure(structured)):
        optimizer = optax.chain(optax.sgd(1.0), held)
        grads = jax.tree.map(jnp.ones_like, params)
        after, _ = tiny.apply_step(optimizer, grads, optimizer.init(structured), structured)
        found = zero_groups(coupling, after)
        assert {name: mask.tolist() for name, mask in found.items()} == {
            name: mask.tolist() for name, mask in zero.items()
        }
        # Other entries are not held.
        assert not jnp.array_equal(dict(named_leaves(after))["conv1/kernel"], model.conv1.kernel[...])
    # Packed parameters would hold none of the model's zeros.
    optimizer = optax.chain(optax.sgd(1.0), freeze_structure(coupling.pack(structured)))
    with pytest.raises(ValueError, match=r"holds at 'coupled/d0' .* and `coupling.regularizer\(\)` where they were"):
        optimizer.init(params)
    # Inside of the coupling the packed parameters are trained.
    coupling.wrap(optimizer).init(params)


def test_what_is_zero_is_removed_and_the_report_says_so(trained):
    model, coupling, state = trained
    params = nnx.state(model, nnx.Param)
    structured = ramda_jax.eval_params(state, params)
    zero = zero_groups(coupling, structured)
    small_model = nnx.clone(model)
    nnx.update(small_model, structured)
    small = compaction.compact_model(small_model, IMAGES)
    kept = {width.name: width.size - len(width.kept) for width in small.plan.widths if width.name in zero}
    assert kept == {name: found.sum() for name, found in zero.items()}
    report = small.report(IMAGES, regularizer=coupling.regularizer(), params=structured, rounds=0)
    assert report.groups == tuple(
        (f"coupled/{name}", int(found.sum()), found.size, int(found.sum()), found.size) for name, found in zero.items()
    )


@pytest.mark.slow
def test_training_goes_on_small_with_the_plan_of_the_models_parameters():
    params = tiny.normal_tree({"in": (5, 8), "a": (8, 3), "b": (8, 3)})
    params |= {name: params[name].at[5:].set(0) for name in ("a", "b")}

    def net(params, x):
        h = jnp.tanh(x @ params["in"])
        return h @ params["a"] + jnp.sin(h @ params["b"])

    coupling = couple_model(net, jnp.ones((2, 5)), variables=params)
    optimizer = coupling.wrap(ramda_jax.ramda(0.1, coupling.regularizer(), strength=0.1))
    grads = jax.tree.map(lambda leaf: 0.01 * leaf, params)
    params, state = tiny.apply_step(optimizer, grads, optimizer.init(params), params)
    plan = compaction.plan_compaction(trace_dims(net, params, jnp.ones((2, 5))), params)
    small_coupling, packed_plan = compaction.compact_coupling(plan, coupling)
    kept = compaction.keep_group_weights(coupling.regularizer(), params)
    small_optimizer = small_coupling.wrap(ramda_jax.ramda(0.1, small_coupling.regularizer(kept), strength=0.1))
    small = compaction.compact(plan, params)
    small_state = compaction.compact_state(plan, state, small_optimizer, small)
    by_packed_plan = compaction.compact_state(packed_plan, state, small_optimizer, small)
    assert jax.tree.structure(small_state) == jax.tree.structure(by_packed_plan)
    assert all(map(jnp.array_equal, jax.tree.leaves(small_state), jax.tree.leaves(by_packed_plan)))
    whole, _ = tiny.apply_step(optimizer, grads, state, params)
    after, _ = tiny.apply_step(small_optimizer, compaction.compact(plan, grads), small_state, small)
    for (path, leaf), (_, other) in zip(
        named_leaves(compaction.compact(plan, whole)), named_leaves(after), strict=True
    ):
        np.testing.assert_allclose(leaf, other, rtol=1e-6, err_msg=path)


def small_problem():
    params = tiny.normal_tree({"in": (5, 6), "out": (6, 3)})
    net = lambda params, x: jnp.tanh(x @ params["in"]) @ params["out"]  # noqa: E731
    return params, couple_model(net, jnp.ones((2, 5)), variables=params)


def wrappers(coupling):
    method = ramda_jax.ramda(0.1, coupling.regularizer(), strength=0.3, averaging=0.1)
    injected = optax.inject_hyperparams(ramda_jax.ramda)(0.1, coupling.regularizer(), strength=0.3, averaging=0.1)
    return {
        "chain": optax.chain(optax.clip_by_global_norm(1e6), coupling.wrap(method)),
        "inject": coupling.wrap(injected),
        "multi steps": optax.MultiSteps(coupling.wrap(method), 1),
        "masked": optax.masked(coupling.wrap(method), {"net": True, "other": False}),
    }


@pytest.mark.slow_except("chain")
@pytest.mark.parametrize("name", ["chain", "inject", "multi steps", "masked"])
def test_eval_params_finds_the_coupling_in_any_wrapper(name):
    params, coupling = small_problem()
    grads = jax.tree.map(lambda leaf: 0.1 * leaf, params)
    plain = coupling.wrap(ramda_jax.ramda(0.1, coupling.regularizer(), strength=0.3, averaging=0.1))
    after, state = tiny.apply_step(plain, grads, plain.init(params), params)
    wanted = ramda_jax.eval_params(state, after)
    assert any(found.any() for found in zero_groups(coupling, wanted).values())
    is_part = name == "masked"
    if is_part:
        params, grads = ({"net": tree, "other": jnp.ones(2)} for tree in (params, grads))
        after = {"net": after, "other": jnp.ones(2)}
    optimizer = wrappers(coupling)[name]
    _, state = jax.jit(lambda: tiny.apply_step(optimizer, grads, optimizer.init(params), params))()
    found = jax.jit(ramda_jax.eval_params)(state, after)
    for (path, leaf), (_, other) in zip(
        named_leaves(found["net"] if is_part else found), named_leaves(wanted), strict=True
    ):
        np.testing.assert_allclose(leaf, other, rtol=1e-6, err_msg=path)


def test_the_state_is_stored_and_belongs_to_its_coupling():
    params, coupling = small_problem()
    optimizer = coupling.wrap(ramda_jax.ramda(0.1, coupling.regularizer(), strength=0.3))
    state = optimizer.init(params)
    stored = flax.serialization.to_bytes(state)
    restored = flax.serialization.from_bytes(optimizer.init(params), stored)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    _, other = small_problem()
    assert other == coupling and jax.tree.structure(other.wrap(optax.sgd(0.1)).init(params)).num_leaves == 0
    frozen = couple_model(
        lambda params, x: jnp.tanh(x @ params["in"]) @ params["out"], jnp.ones((2, 5)), variables=params,
        overrides={"out": ("frozen", None)},
    )  # fmt: skip
    with pytest.raises(ValueError, match="must be one of this coupling, got one of Coupling"):
        frozen.wrap(optax.sgd(0.1)).update(params, state, params)


def test_nothing_free_is_said_with_the_reason():
    params = {"a": jnp.ones((8, 16)), "b": jnp.ones((16, 3))}
    for coupling in (
        couple(trace_dims(normed, params, jnp.ones((2, 8))), params),
        couple_model(normed, jnp.ones((2, 8)), variables=params),
    ):
        assert coupling.parts == {} and str(coupling).startswith("nothing is coupled: no index of the parameters")
        with pytest.raises(CompactionError, match=r"Some group must be removable.*d1 of 16 stays: reduce_sum runs"):
            coupling.regularizer()
        rest = coupling.regularizer(rest={"^rest/a$": GroupLasso()})
        coupling.wrap(ramda_jax.ramda(0.1, rest, strength=0.1)).init(params)


def test_an_optimizer_that_was_not_wrapped_is_told_so():
    params, coupling = small_problem()
    with pytest.raises(ValueError, match=r"matches no leaf.*; put the optimizer into `coupling.wrap`"):
        ramda_jax.ramda(0.1, coupling.regularizer(), strength=0.3).init(params)


def test_a_group_that_something_uncoupled_reads_as_well_is_none():
    def net(params, x):
        h = jnp.tanh(x @ params["in"])
        return jnp.tanh(h @ params["a"]) @ params["b"] + h @ jnp.ones((8, 3))

    params = {"in": jnp.ones((5, 8)), "a": jnp.ones((8, 4)), "b": jnp.ones((4, 3))}
    coupling = couple_model(net, jnp.ones((2, 5)), variables=params)
    assert [str(part) for parts in coupling.parts.values() for part in parts] == ["b[0]"]
    assert "d0 (something without groups reads it too)" in str(coupling)


def test_the_print_says_which_widths_have_no_groups_and_why():
    def net(params, x):
        h = jnp.tanh(x @ params["in"])
        scores = jnp.einsum("bd,bd->b", x @ params["q"], x @ params["k"])[:, None]
        return h @ params["out"] + scores + h.sum(-1, keepdims=True) + jnp.tanh(x @ params["up"]) @ params["down"]

    shapes = {"in": (5, 8), "out": (8, 3), "q": (5, 6), "k": (5, 6), "up": (5, 9), "down": (9, 3)}
    params = tiny.normal_tree(shapes)
    dims = trace_dims(net, params, jnp.ones((2, 5)))
    text = str(couple(dims, params))
    made = {str(member): width.name for width in dims.widths for member in width.members}
    for axis, reason in (("in[1]", "reduce_sum runs over it"), ("q[1]", "no parameter alone reads it")):
        assert f"{made[axis]} ({reason})" in " ".join(text.split())
    # Without `down` among the parameters, nothing among them reads its width.
    part = {name: leaf for name, leaf in params.items() if name != "down"}
    assert f"{made['up[1]']} (what reads it is not among the parameters)" in couple(dims, part).left_out
    assert all(len(line) <= 120 for line in text.splitlines()) and len(text.splitlines()) == 4


def test_linens_parameters_are_those_of_their_collection():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3))(x)))
            return nn.Dense(3)(nn.relu(nn.Conv(8, (3, 3))(x)).reshape(len(x), -1))

    module = Net()
    variables = module.init(jax.random.key(0), IMAGES)
    coupling = couple_model(module, IMAGES, variables=variables)
    assert set(coupling.shapes) == {path for path, _ in named_leaves(variables["params"])}
    params = variables["params"]
    optimizer = coupling.wrap(ramda_jax.ramda(0.1, coupling.regularizer(), strength=1e3, averaging=0.5))
    grads = jax.tree.map(jnp.ones_like, params)
    after, state = tiny.apply_step(optimizer, grads, optimizer.init(params), params)
    structured = ramda_jax.eval_params(state, after)
    assert float(metrics.group_sparsity(coupling.regularizer(), structured)) == 1
    # This also works for all variables.
    whole = {**variables, "params": after}
    everything = ramda_jax.eval_params(state, whole)
    assert float(metrics.group_sparsity(coupling.regularizer(), everything)) == 1
    assert everything["batch_stats"]["BatchNorm_0"]["var"] is whole["batch_stats"]["BatchNorm_0"]["var"]


def test_values_may_be_coupled_by_their_size_where_the_heads_are_frozen():
    def attention(params, x):
        q, k, v = (jnp.einsum("btd,dnh->btnh", x, params[name]) for name in ("q", "k", "v"))
        weights = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q, k) * 0.3)
        return jnp.einsum("btnh,nhd->btd", jnp.einsum("bnts,bsnh->btnh", weights, v), params["o"])

    params = tiny.normal_tree({"q": (6, 4, 5), "k": (6, 4, 5), "v": (6, 4, 5), "o": (4, 5, 6)})
    for overrides, wanted in ((None, "o[0]"), ({"o": ("frozen", None, None)}, "o[1]")):
        dims = trace_dims(attention, params, jnp.ones((2, 3, 6)), overrides=overrides)
        assert [str(part) for parts in couple(dims, params).parts.values() for part in parts] == [wanted]
    structured = params | {"o": params["o"].at[:, 3:].set(0)}
    small = compaction.compact_model(attention, jnp.ones((2, 3, 6)), variables=structured)
    assert small.variables["v"].shape == (6, 4, 3) and small.variables["q"].shape == (6, 4, 5)
