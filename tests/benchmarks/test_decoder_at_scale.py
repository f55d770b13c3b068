"""The decoder whose training step is compiled for many chips, here on a single device."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import decoder_at_scale
from benchmarks.decoder_at_scale import SIZES, Machine, decoder, groups_of, line, main, measured, shapes, shortage


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


def test_a_step_that_does_not_fit_is_a_row_with_what_xla_says():
    message = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 17.34G of "
        "15.75G hbm. Exceeded hbm capacity by 1.59G.\n\nTotal hbm usage >= 17.59G:\n"
    )
    row = {"size": "7b", "chips": 16, "method": "ramda", "does_not_fit": shortage(message)}
    assert line(row).split(maxsplit=3) == ["7b", "16", "ramda", "does not fit: Used 17.34G of 15.75G hbm"]


def test_rows_of_the_file_are_printed_and_not_compiled_again(tmp_path, capsys):
    rows = [{"size": "1b", "chips": 64, "method": method, "does_not_fit": method} for method in ("adamw", "ramda")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    # No environment of the tests can compile for TPUs.
    main(["--sizes", "1b", "--chips", "64", "--json", str(tmp_path / "rows.json")])
    assert [text.split()[2] for text in capsys.readouterr().out.splitlines()[1:]] == ["adamw", "ramda"]
