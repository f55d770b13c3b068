"""The search: it takes few attempts, on shapes alone, and gives each width that stays its own reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax.compaction import CompactionError, compact_model
from ramda_jax.compaction import model as model_module
from ramda_jax.compaction.planning.slicing import compact
from ramda_jax.compaction.search.attempt import Attempts
from tests.tiny import array

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6)), jnp.float32)


@pytest.fixture
def attempts(monkeypatch):
    """The number of attempts, and the number of times that arrays were cut."""
    counts = {"attempts": 0, "cuts": 0}
    attempt = Attempts.__call__

    def counted(self, *args, **kwargs):
        counts["attempts"] += 1
        return attempt(self, *args, **kwargs)

    def cut(*args):
        counts["cuts"] += 1
        return compact(*args)

    monkeypatch.setattr(Attempts, "__call__", counted)
    monkeypatch.setattr(model_module, "compact", cut)
    return counts


def blocks(depth, dead=4, width=8):
    rng = np.random.default_rng(1)

    def matrix(*shape):
        return array(rng.normal(size=shape), jnp.float32)

    def block():
        return {"up": matrix(6, width), "down": matrix(width, 6).at[width - dead :].set(0)}

    return {"blocks": [block() for _ in range(depth)], "out": matrix(6, 5), "last": matrix(5, 2).at[3:].set(0)}


def net(*between):
    """Residual blocks, each with one of the functions `between` on its units, followed by two layers."""

    def apply(params, x):
        for number, block in enumerate(params["blocks"]):
            h = jnp.tanh(x @ block["up"])
            x = x + between[number % len(between)](h) @ block["down"]
        return jnp.tanh(x @ params["out"]) @ params["last"]

    return apply


def nothing(h):
    return h


def scaled(h):
    return h / jnp.sqrt(h.shape[-1])


def in_groups(h):
    return jnp.tanh(h.reshape(3, 4, 2)).reshape(3, -1)


def in_other_groups(h):
    return jnp.tanh(h.reshape(3, 2, -1)).reshape(3, 8)


def shapes(small):
    return [block["up"].shape[1] for block in small.variables["blocks"]]


@pytest.mark.parametrize(("between", "most"), [(scaled, 5), (in_groups, 8)])
def test_the_number_of_attempts_does_not_grow_with_the_number_of_blocks(between, most, attempts):
    needed = []
    for depth in (3, 9):
        attempts.update(attempts=0, cuts=0)
        small = compact_model(net(between), X, variables=blocks(depth), num_random=0)
        assert shapes(small) == [8] * depth and small.variables["last"].shape == (3, 2)
        assert len(small.refused) == depth
        # The arrays are cut only once.
        assert attempts["cuts"] == 1
        needed.append(attempts["attempts"])
    assert needed[0] == needed[1] <= most


def test_a_model_with_nothing_to_refuse_takes_one_attempt(attempts):
    small = compact_model(net(nothing), X, variables=blocks(4), num_random=0)
    assert shapes(small) == [4] * 4 and attempts == {"attempts": 1, "cuts": 1}


@pytest.mark.covering
@pytest.mark.parametrize("number", [0, 2, 4])
@pytest.mark.parametrize("wrong", [scaled, in_groups, in_other_groups])
def test_one_block_that_must_stay_keeps_no_other(number, wrong):
    between = [nothing] * 5
    between[number] = wrong
    small = compact_model(net(*between), X, variables=blocks(5), num_random=0)
    assert shapes(small) == [8 if i == number else 4 for i in range(5)]
    assert small.variables["last"].shape == (3, 2) and len(small.refused) == 1


def test_each_width_has_its_own_reason_with_the_line_of_the_code():
    small = compact_model(net(scaled, in_groups, nothing), X, variables=blocks(3), num_random=0)
    assert shapes(small) == [8, 8, 4]
    reasons = {
        member.split("/")[1]: small.refused[width.name]
        for width in small.plan.widths
        if width.name in small.refused
        for member in width.members
    }
    assert reasons["0"].startswith("the constant in sqrt depends on a size: it went from 8.0 to 4.0")
    assert "test_search.py" in reasons["0"] and "`return h / jnp.sqrt(h.shape[-1])`" in reasons["0"]
    assert "cannot reshape array" in reasons["1"]
    assert "`return jnp.tanh(h.reshape(3, 4, 2)).reshape(3, -1)`" in reasons["1"]
    assert "jnp.sqrt" in str(small) and "a number" in reasons["1"]


def test_kinds_that_can_go_alone_but_not_together_are_kept_one_after_the_other():
    def equal(params, x):
        h, g = jnp.tanh(x @ params["a"]), jnp.tanh(x @ params["b"])
        assert (h.shape[1], g.shape[1]) != (4, 5), "not both"
        return h @ params["c"] + g @ params["d"]

    rng = np.random.default_rng(0)
    params = {name: array(rng.normal(size=shape), jnp.float32) for name, shape in {"a": (6, 6), "b": (6, 7)}.items()}
    params |= {"c": jnp.ones((6, 2)).at[4:].set(0), "d": jnp.ones((7, 2)).at[5:].set(0)}
    small = compact_model(equal, X, variables=params, num_random=0)
    assert (small.variables["a"].shape, small.variables["b"].shape) == ((6, 4), (6, 7))
    [reason] = small.refused.values()
    assert "not both" in reason and "together with others" in reason


def test_nothing_left_is_an_error_with_all_reasons():
    with pytest.raises(CompactionError, match=r"Nothing can be deleted .*depends on a size.*cannot reshape"):
        compact_model(net(scaled, in_groups), X, variables=blocks(4) | {"last": jnp.ones((5, 2))}, num_random=0)


def test_guesses_do_not_change_what_a_call_does_not_ask_for():
    """The number of classes of this linen model equals the width that shrinks."""
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        classes: int = 8
        heads: int = 4

        @nn.compact
        def __call__(self, x):
            h = nn.Dense(8)(x)
            h = jnp.tanh(h.reshape(len(x), self.heads, -1)).max(-1)
            return nn.Dense(3)(h)

        def loss(self, x):
            return jax.nn.one_hot(jnp.argmax(self(x), -1), self.classes)

    module = Net()
    variables = jax.jit(module.init)(jax.random.key(0), X)
    kernel = variables["params"]["Dense_1"]["kernel"].at[1:3].set(0)
    variables = {"params": variables["params"] | {"Dense_1": variables["params"]["Dense_1"] | {"kernel": kernel}}}
    small = compact_model(module, X, variables=variables, num_random=0)
    assert small.sizes == {"heads": 2} and small.variables["params"]["Dense_0"]["kernel"].shape == (6, 4)
