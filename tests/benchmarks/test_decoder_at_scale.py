"""The decoder whose training step is compiled for many chips, here on a single device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import decoder_at_scale
from benchmarks.decoder_at_scale import SIZES, Machine, decoder, groups_of, line, measured, shapes


def small_params():
    keys = iter(jax.random.split(jax.random.key(0), 20))
    return jax.tree.map(lambda x: 0.1 * jax.random.normal(next(keys), x.shape), shapes(SIZES["tiny"]))


@pytest.mark.slow
def test_a_token_sees_what_is_before_it_only():
    params, tokens = small_params(), jnp.arange(12).reshape(2, 6)
    logits = jax.jit(decoder)(params, tokens)
    assert logits.shape == (2, 6, 256)
    later = jax.jit(decoder)(params, tokens.at[:, 4:].set(99))
    np.testing.assert_array_equal(logits[:, :4], later[:, :4])
    assert bool(jnp.any(logits[:, 4:] != later[:, 4:]))


def test_groups_are_hidden_units_and_heads():
    assert {pattern: given.groups for pattern, given in groups_of(shapes(SIZES["tiny"])).items()} == {
        "^layers/down$": (1,),
        "^layers/out$": (1,),
    }


@pytest.mark.parametrize(("name", "billions"), [("1b", 1.1), ("7b", 7.24)])
def test_the_sizes_are_those_of_the_models_they_are_named_after(name, billions):
    count = sum(x.size for x in jax.tree.leaves(shapes(SIZES[name])))
    assert count == pytest.approx(billions * 1e9, rel=0.01)


@pytest.mark.slow
def test_a_row_has_what_is_printed(monkeypatch):
    monkeypatch.setattr(decoder_at_scale, "TOKENS", 16)
    rows = [{"size": "tiny"} | row for row in measured(Machine(jax.devices()[:1]), SIZES["tiny"], ["adamw", "ramda"])]
    adamw, ramda = rows
    assert adamw["collectives"] == ramda["collectives"] == {}
    # RAMDA's state has three trees: V, U and the anchor. AdamW's state has two.
    added = 4 * (sum(x.size for x in jax.tree.leaves(shapes(SIZES["tiny"]))))
    assert ramda["arguments"] - adamw["arguments"] == pytest.approx(added, rel=0.02)
    assert 0 < adamw["optimizer_bytes"] < ramda["optimizer_bytes"]
    assert adamw["gradient_bytes"] > 0
    assert line(adamw).startswith("tiny      1 adamw")
