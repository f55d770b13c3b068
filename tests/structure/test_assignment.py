"""Which leaf gets which regularizer: given alone, by patterns or by trees, for every kind of parameter tree."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen, nnx

from ramda_jax import L1, GroupLasso, Null, proximal_point
from ramda_jax.structure import assign, assignment, regularized_leaves
from ramda_jax.structure.alone import is_selected_alone

ROWS, COLUMNS = GroupLasso(group_weight=1.0), GroupLasso("output")


def kernel(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


PARAMS = {
    "conv": {"kernel": kernel(3, 3, 4, 8), "bias": kernel(8)},
    "embed": {"embedding": kernel(100, 16)},
    "encoder": {"position_embedding": kernel(1, 10, 16), "cls_token": kernel(1, 1, 16), "w": kernel(16, 16)},
    "norm": {"scale": kernel(2, 16), "bias": kernel(2, 16)},
    "temperature": kernel(),
}


def given_to(spec, params=None):
    """Maps the name of each regularized leaf to its regularizer."""
    return {name: given for name, _, given in regularized_leaves(spec, PARAMS if params is None else params)}


def on(leaf, regularizer, *axes):
    """The regularizer resolved for a leaf: groups are axes, and the weight is a number."""
    resolved = dataclasses.replace(regularizer, groups=axes)
    return dataclasses.replace(resolved, group_weight=resolved.weights(leaf.shape))


def test_alone_takes_leaves_of_two_axes_or_more_that_are_no_bias_scale_embedding_or_token():
    assert given_to(ROWS) == {
        "conv/kernel": dataclasses.replace(ROWS, groups=(2,)),
        "encoder/w": dataclasses.replace(ROWS, groups=(0,)),
    }


TABLES_AND_TOKENS = (
    "embeddings pos_embeddings position_embeddings pos_embed embed wte wpe register_tokens mask_tokens query_tokens "
    "queries latents relative_position_bias_table relative_attention_bias A_log gamma beta"
).split()


@pytest.mark.parametrize(
    ("path", "ndim", "selected"),
    [
        ("a/kernel", 2, True),
        ("a/kernel", 1, False),
        ("a/kernel", 0, False),
        ("kernel", 5, True),
        ("bias", 2, False),
        ("a/bias", 2, False),
        ("a/scale", 3, False),
        ("a/embedding", 2, False),
        ("a/pos_embedding", 2, False),
        ("a/_embedding", 2, False),
        ("mask_token", 3, False),
        ("a/token", 2, False),
        ("a/unbias", 2, True),
        ("a/rescale", 2, True),
        ("a/bias_kernel", 2, True),
        ("a/tokenizer", 2, True),
        ("a/atable", 2, True),
        ("bias/kernel", 2, True),  # only the last key counts
        ("pos_embedding/w", 2, True),
        *((f"a/{name}", 3, False) for name in TABLES_AND_TOKENS),
        ("embed/weight", 2, False),
        ("tok_embeddings/weight", 2, False),
        ("wte/weight", 2, False),
        *((f"layers/{name}/weight", 2, False) for name in ("norm1", "input_layernorm", "LayerNorm", "ln_1", "ln2")),
        ("layers/normalizer/kernel", 2, True),
        ("dense/weight", 2, True),
        ("unembed/weight", 2, True),
        ("", 0, False),
        ("", 1, True),
        ("", 2, True),
    ],
)
def test_is_selected_alone(path, ndim, selected):
    assert is_selected_alone(path, ndim) is selected


@pytest.mark.contract("None at the root or a leaf, trees, prefixes, patterns")
def test_none_gives_nobody_anything():
    assert given_to(None) == {}
    assert [name for name, *_ in assign(None, PARAMS)] == [
        "conv/bias", "conv/kernel", "embed/embedding", "encoder/cls_token", "encoder/position_embedding", "encoder/w",
        "norm/bias", "norm/scale", "temperature",
    ]  # fmt: skip


def test_one_bare_array_is_selected_alone():
    axes = GroupLasso((0,))
    assert given_to(axes, kernel(7)) == {"": on(kernel(7), axes, 0)}
    assert given_to(axes, kernel()) == {}
    with pytest.raises(ValueError, match=r'`groups="input"` must go to a leaf of two axes or more'):
        assign(GroupLasso(), kernel(7))
    # `optax.flatten` passes a single vector.
    optimizer = optax.flatten(proximal_like(GroupLasso((0,))))
    optimizer.init({"a": jnp.ones((2, 3)), "b": jnp.ones(4)})


def proximal_like(spec):
    """A transformation that only checks the assignment."""

    def init(params):
        assert given_to(spec, params)
        return optax.EmptyState()

    return optax.GradientTransformation(init, lambda updates, state, params=None: (updates, state))


def test_alone_that_selects_nothing_raises_only_if_some_leaf_has_two_axes():
    with pytest.raises(ValueError, match=r"given alone selects no leaf: .*'embedding'.*mapping of patterns"):
        assign(ROWS, {"embedding": kernel(5, 3), "bias": kernel(3)})
    assert given_to(ROWS, {"bias": kernel(3), "t": kernel()}) == {}
    assert given_to(ROWS, {}) == {}
    assert given_to(None, {"embedding": kernel(5, 3)}) == {}


@pytest.mark.contract("None at the root or a leaf, trees, prefixes, patterns")
def test_first_matching_pattern_wins():
    spec = {r"conv/kernel": COLUMNS, r"kernel|w$": ROWS, r"embedding$": None, r".*": Null()}
    assert given_to(spec) == {
        "conv/kernel": on(PARAMS["conv"]["kernel"], COLUMNS, 3),
        "encoder/w": dataclasses.replace(ROWS, groups=(0,)),
    }  # Null is None: psi = 0
    reversed_order = {r"kernel|w$": ROWS, r"conv/kernel": COLUMNS}
    assert given_to(reversed_order)["conv/kernel"] == dataclasses.replace(ROWS, groups=(2,))


def test_patterns_search_anywhere_and_take_what_alone_would_not():
    assert set(given_to({r"nv/k": ROWS})) == {"conv/kernel"}
    assert set(given_to({r"^k": ROWS}, {"kernel": kernel(2, 2), "ok": kernel(2, 2)})) == {"kernel"}
    assert set(given_to({r"embedding": ROWS})) == {"embed/embedding", "encoder/position_embedding"}
    assert set(given_to({r"norm/bias": GroupLasso((0,))})) == {"norm/bias"}


def test_a_key_of_a_flat_mapping_is_a_pattern_even_if_it_is_the_path_of_a_subtree():
    params = {"dense": {"bias": kernel(4), "kernel": kernel(3, 4)}, "densest": kernel(2, 2)}
    for key in ("dense", "^den", "ens"):
        assert set(given_to({key: L1()}, params)) == {"dense/bias", "dense/kernel", "densest"}
    # A leaf whose number of axes does not fit the groups is refused, not skipped.
    with pytest.raises(ValueError, match="'dense/bias' has 1; leave it out by a narrower pattern"):
        assign({"dense": GroupLasso()}, params)


def test_a_regularizer_at_a_subtree_of_a_tree_takes_in_there_what_it_would_take_alone():
    assert set(given_to({"encoder": ROWS, "conv": {"kernel": None}})) == {"encoder/w"}


def test_a_key_is_not_the_path_of_what_only_begins_alike():
    params = {"layers": {name: {"kernel": kernel(2, 3), "bias": kernel(3)} for name in ("1", "10")}}
    assert set(given_to({"layers": {"1": ROWS}}, params)) == {"layers/1/kernel"}
    # As a pattern it matches both layers, and selects every leaf that it matches.
    assert set(given_to({"layers/1": GroupLasso((0,))}, params)) == {
        "layers/1/bias",
        "layers/1/kernel",
        "layers/10/bias",
        "layers/10/kernel",
    }


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"conv": {"kernel": ROWS, "bias": None}, "embed": None, "encoder": None, "norm": None, "temperature": None},
         {"conv/kernel"}),
        ({"conv": ROWS, "embed": None, "encoder": {"w": ROWS}}, {"conv/kernel", "encoder/w"}),
        ({"conv": {"kernel": ROWS}}, {"conv/kernel"}),
        ({"embed": {"embedding": ROWS}}, {"embed/embedding"}),  # a leaf that is named is selected
        ({"encoder": {"w": ROWS}, "conv": optax.MaskedNode()}, {"encoder/w"}),
    ],
)  # fmt: skip
@pytest.mark.contract("None at the root or a leaf, trees, prefixes, patterns")
def test_a_tree_or_prefix_of_regularizers(spec, expected):
    assert set(given_to(spec)) == expected


def test_a_trees_keys_are_taken_literally():
    params = {"layer.1": {"w": kernel(2, 2)}, "layer_1": {"w": kernel(2, 2)}}
    assert set(given_to({"layer.1": {"w": ROWS}}, params)) == {"layer.1/w"}
    assert set(given_to({"layer.1/w": ROWS}, params)) == {"layer.1/w", "layer_1/w"}  # a pattern


def test_a_prefix_of_lists_and_tuples():
    params = [kernel(2, 3), (kernel(3, 4), kernel(4))]
    assert set(given_to([ROWS, COLUMNS], params)) == {"0", "1/0"}
    assert set(given_to([None, (COLUMNS, None)], params)) == {"1/0"}


@pytest.mark.contract("None at the root or a leaf, trees, prefixes, patterns")
def test_what_matches_nothing_raises_and_lists_the_paths():
    with pytest.raises(
        ValueError, match=r"pattern 'dens' matches no leaf\. The paths are \['conv/bias', 'conv/kernel'"
    ):
        assign({"kernel": ROWS, "dens": ROWS}, PARAMS)
    with pytest.raises(ValueError, match=r"pattern 'dens' matches no leaf"):
        assign({"dens": None, "kernel": ROWS}, PARAMS)
    with pytest.raises(ValueError, match=r"path 'dense/kernel' matches no leaf"):
        assign({"dense": {"kernel": ROWS}}, PARAMS)
    # A pattern that matches only leaves of earlier patterns is not a mistake.
    assert set(given_to({"conv/kernel": ROWS, "conv": None}, PARAMS)) == {"conv/kernel"}
    # A None in a tree at a path that does not exist is not a mistake either.
    assert set(given_to({"conv": {"kernel": ROWS}, "dense": {"kernel": None}})) == {"conv/kernel"}


def test_none_counts_as_a_place_that_is_there():
    params = {"a": {"kernel": kernel(2, 3)}, "c": {"kernel": None}}
    for spec in ({"a/": ROWS, "c/": ROWS}, {"a": {"kernel": ROWS}, "c": {"kernel": ROWS}}):
        assert set(given_to(spec, params)) == {"a/kernel"}
    with pytest.raises(ValueError, match="'d/' matches no leaf"):
        assign({"a/": ROWS, "d/": ROWS}, params)
    assert given_to({"a/": ROWS}, {}) == {}  # a tree without leaves, as `optax.tree.map_params` gives


def test_what_is_masked_cannot_be_told_from_a_mistake():
    params = {"a": {"kernel": kernel(2, 3)}, "b": optax.MaskedNode()}
    for spec in ({"a/": ROWS, "b/dense/": ROWS}, {"a": {"kernel": ROWS}, "b": {"dense": ROWS}}):
        assert set(given_to(spec, params)) == {"a/kernel"}


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("input", TypeError, r"A regularizer must be a `Regularizer` or None, got 'input' at ''; use"),
        ({"conv": "l1"}, TypeError, r"must be a `Regularizer` or None, got 'l1' at 'conv'"),
        ({"conv": {"kernel": 1e-3}}, TypeError, r"must be a `Regularizer` or None, got 0.001 at 'conv/kernel'"),
        (GroupLasso, TypeError, r"must be a `Regularizer` or None, got <class"),
        ({"conv(": ROWS}, ValueError, r"A pattern must be a regular expression, got 'conv\('.*; escape it"),
    ],
)
def test_what_is_no_regularizer_is_refused_by_name(spec, error, message):
    with pytest.raises(error, match=message):
        assignment(spec)
    with pytest.raises(error, match=message):
        proximal_point(spec, 1.0)


def test_groups_that_do_not_fit_name_the_leaf():
    with pytest.raises(ValueError, match="'temperature' has 0"):
        assign({"temperature": ROWS}, PARAMS)
    with pytest.raises(ValueError, match="axes of the leaf 'encoder/w', which has 2"):
        assign({"encoder/w": GroupLasso(3)}, PARAMS)


def test_an_assignment_is_hashable_idempotent_and_lists_its_regularizers():
    spec = assignment({"a": ROWS, "b": None, "c": COLUMNS})
    assert assignment(spec) is spec
    assert hash(spec) == hash(assignment({"a": ROWS, "b": None, "c": COLUMNS}))
    assert spec != assignment({"a": COLUMNS, "b": None, "c": ROWS})
    assert spec.regularizers == (ROWS, COLUMNS)
    assert assignment(ROWS).regularizers == (ROWS,)
    assert assignment(None).regularizers == ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Linear:
    """A layer as in Equinox: `weight` is (out, in)."""

    weight: jax.Array
    bias: jax.Array | None = None


def test_dataclass_layers_by_pattern_and_by_tree():
    params = {"layers": [Linear(kernel(4, 3), kernel(4)), Linear(kernel(2, 4))]}
    columns = GroupLasso((1,))
    both = {
        "layers/0/weight": on(kernel(4, 3), columns, 1),
        "layers/1/weight": on(kernel(2, 4), columns, 1),
    }
    assert given_to({"weight": columns}, params) == both
    assert given_to(columns, params) == both
    tree = {"layers": [Linear(columns, None), Linear(None)]}
    assert given_to(tree, params) == {"layers/0/weight": both["layers/0/weight"]}


class Network(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, 4, decode=False, rngs=rngs)
        self.embed = nnx.Embed(5, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)


NNX_ALONE = {
    "attention/key/kernel": (0,),
    "attention/out/kernel": (0, 1),
    "attention/query/kernel": (0,),
    "attention/value/kernel": (0,),
    "conv/kernel": (2,),
}


@pytest.mark.parametrize(
    "spec",
    [ROWS, {r"kernel$": ROWS}, {"conv": {"kernel": ROWS}, "attention": ROWS}],
    ids=["alone", "pattern", "subtrees"],
)
def test_nnx_state_before_and_after_as_pure_and_as_dict_get_the_same(spec):
    state = nnx.state(Network(nnx.Rngs(0)), nnx.Param)
    for tree in (state, nnx.as_pure(state), nnx.to_pure_dict(state)):
        assert {name: resolved.groups for name, resolved in given_to(spec, tree).items()} == NNX_ALONE


def test_a_pattern_that_also_takes_a_layers_bias_is_refused_by_name():
    # Unlike the path of a subtree, a pattern selects all leaves that it matches, and "input" needs a kernel.
    state = nnx.state(Network(nnx.Rngs(0)), nnx.Param)
    with pytest.raises(ValueError, match=r"must go to a kernel, but 'attention/key/bias' of shape \(2, 2\)"):
        assign({"conv": ROWS, "query|key|value|out": ROWS}, state)


def test_nnx_tree_of_regularizers_serves_pure_and_other_states():
    state = nnx.state(Network(nnx.Rngs(0)), nnx.Param)
    tree = jax.tree.map_with_path(lambda path, x: ROWS if "conv" in str(path) and x.ndim == 4 else None, state)
    for params in (state, nnx.as_pure(state)):
        assert set(given_to(tree, params)) == {"conv/kernel"}


def test_linen_dicts_with_and_without_boxes_get_the_same():
    init = linen.with_partitioning(linen.initializers.lecun_normal(), (None, "out"))
    params = linen.Dense(4, kernel_init=init).init(jax.random.key(0), jnp.ones((1, 3)))
    for spec in (ROWS, {"params/kernel": ROWS}, {"params": {"kernel": ROWS, "bias": None}}):
        for tree in (params, linen.meta.unbox(params)):
            assert given_to(spec, tree) == {"params/kernel": dataclasses.replace(ROWS, groups=(0,))}


def test_masked_and_partitioned_leaves_keep_their_names():
    params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 4))}}
    optimizer = optax.masked(proximal_point({r"a/": ROWS, r"b/": ROWS}, 1.0), {"a": True, "b": False})
    assert set(optimizer.init(params).inner_state.radii) == {"a/kernel"}
