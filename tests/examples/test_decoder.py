"""The decoder computes the same with and without its cache, and the whole example runs at a small size."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from examples import decoder
from examples.data.characters import num_characters, random_pieces, read_text, spread_pieces
from examples.data.errors import DataError
from examples.models.decoder import Decoder, continued
from ramda_jax import compaction

SIZES = {"width": 8, "depth": 2, "groups": 3, "queries": 2, "size": 4, "hidden": 24}
TINY = [f"--{name}={size}" for name, size in SIZES.items()]
TINY += ["--batch-size=4", "--context=8", "--count=5", "--learning-rate=0.1"]


@pytest.fixture(scope="module")
def model():
    return Decoder(11, **SIZES, rngs=nnx.Rngs(0))


def in_parts(model, tokens, lengths):
    """The logits of tokens that are read a few at a time, with a cache for more tokens than these."""
    cache, found = model.empty_cache(len(tokens), tokens.shape[1] + 2), []
    for part in np.split(tokens, np.cumsum(lengths)[:-1], axis=1):
        logits, cache = model.advance(part, cache)
        found.append(logits)
    assert int(cache.length) == tokens.shape[1]
    return jnp.concatenate(found, axis=1)


@pytest.mark.slow
def test_a_cache_changes_nothing_however_many_tokens_are_read_at_a_time(model):
    tokens = np.random.default_rng(0).integers(11, size=(2, 6))
    whole = jax.nn.log_softmax(model(tokens))
    parts = jax.nn.log_softmax(in_parts(model, tokens, (3, 1, 2)))
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    # No token sees a later token, and each sees the first token.
    other = jax.nn.log_softmax(model(np.concatenate([tokens[:, :5], 1 + tokens[:, 5:] % 10], axis=1)))
    np.testing.assert_allclose(other[:, :5], whole[:, :5], atol=1e-5)
    first = jax.nn.log_softmax(model(np.concatenate([(tokens[:, :1] + 1) % 11, tokens[:, 1:]], axis=1)))
    assert (jnp.abs(first - whole).max(axis=-1) > 1e-3).all()


def test_the_most_likely_continuation_is_that_of_the_whole_text_from_the_start(model):
    prompts = np.random.default_rng(1).integers(11, size=(2, 3)).astype(np.int32)
    found = continued(model, prompts, 3)
    logits = model(np.concatenate([prompts, found[:, :-1]], axis=1))
    np.testing.assert_array_equal(found, jnp.argmax(logits[:, 2:], axis=-1))


def test_groups_are_the_hidden_units_and_the_heads_that_share_a_key_of_all_layers(model):
    groups = compaction.groups(compaction.trace_dims(model, np.zeros((1, 4), np.int32)))
    assert {pattern: regularizer.groups for pattern, regularizer in groups.items()} == {
        "^layers/down/kernel$": (1,),
        "^layers/out/kernel$": (1,),
    }


def test_texts_are_bytes_and_characters_are_counted_as_readers_do(tmp_path):
    (tmp_path / "wiki.train.tokens").write_text("Senjō no " * 9, encoding="utf-8")
    (tmp_path / "wiki.valid.tokens").write_text("戦場の", encoding="utf-8")
    train, held_out = read_text(tmp_path)
    assert (len(train), num_characters(train)) == (9 * 10, 9 * 9) and num_characters(held_out) == 3
    assert random_pieces(train, 4, 10, np.random.default_rng(0)).shape == (4, 10)
    assert spread_pieces(train, 3, 10)[:, 0].tolist() == [train[0]] * 3
    for wrong in (lambda: random_pieces(train, 10, 10, np.random.default_rng(0)), lambda: spread_pieces(train, 10, 10)):
        with pytest.raises(DataError, match="pieces of"):
            wrong()
    with pytest.raises(DataError, match="lacks"):
        read_text(tmp_path / "nowhere")
    assert min(map(len, read_text())) > 10_000


def check_story(rows, printed, tmp_path):
    dense, small = rows
    assert small["params"] < 0.85 * dense["params"] and small["flops_per_token"] < dense["flops_per_token"]
    for line in ("Dense", "lambda", "held out", "100.0% of the bytes", "another process: 100.0%", "bits per"):
        assert line in printed
    assert json.loads((tmp_path / "rows.json").read_text()) == rows


@pytest.mark.slow
def test_the_example_goes_from_text_to_a_small_decoder_that_another_process_rebuilds_and_continues_alike(
    tmp_path, capsys
):
    """It trains for such a short time that the small decoder has only roughly the size asked for."""
    files = ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "rows.json")]
    rows = decoder.main(["--keep", "0.75", "--steps", "160", *TINY, *files])
    check_story(rows, capsys.readouterr().out, tmp_path)
    decoder.main(["--decode", str(tmp_path / "out" / "0.75"), "--prompt", "The first", "--count", "5"])
    assert "The first|" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--keep", "0.5", "0.1"],
            "--keep must be above the share of what cannot be removed, .* got 0.1; use",
        ),
        (["--data-dir", "nowhere"], "WikiText is not complete"),
    ],
)
def test_the_example_says_what_cannot_be_had_before_it_trains(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        decoder.main([*arguments, *TINY])
    printed = capsys.readouterr()
    assert re.search(message, printed.err + str(caught.value)) and not printed.out
