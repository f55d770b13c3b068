"""The studies beyond the papers: their schedules and measures are what they say, and the command runs."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax
from benchmarks.beyond import __main__ as command
from benchmarks.beyond import ablation, last_stage, structure, widths
from benchmarks.beyond.runs import Watched, many

STEPS = 400


def test_the_default_cell_is_what_stages_gives():
    settings = ramda_jax.stages(0.3, total_steps=STEPS)
    steps = jnp.arange(STEPS)
    rates = np.asarray([settings["learning_rate"](step) for step in steps])
    averagings = np.asarray([settings["averaging"](step) for step in steps])
    assert settings["restarts"] == ablation.ends_of(STEPS)
    np.testing.assert_allclose(0.3 * ablation.rates_of("in steps", STEPS), rates, rtol=1e-5)
    np.testing.assert_allclose(ablation.averagings_of(ablation.DEFAULT, STEPS), averagings, rtol=1e-5)
    np.testing.assert_allclose(0.3 * last_stage.rates_of(*last_stage.SETTINGS[0], STEPS), rates, rtol=1e-5)


def test_averaging_by_stage_is_stage_growth():
    schedule = ramda_jax.stage_growth(0.01, ablation.ends_of(STEPS))
    wanted = [schedule(step) for step in range(0, STEPS, 10)]
    np.testing.assert_allclose(ablation.averagings_of("growing by stage", STEPS)[::10], wanted, rtol=1e-5)


def test_a_rate_that_falls_begins_again_at_the_last_stage():
    last = ablation.ends_of(STEPS)[-1]
    rates = ablation.rates_of("falls at the end", STEPS)
    np.testing.assert_allclose(rates[:last], ablation.rates_of("in steps", STEPS)[:last])
    np.testing.assert_allclose(rates[last:], np.arange(1, STEPS - last + 1) ** -0.6)
    np.testing.assert_allclose(last_stage.rates_of(1.0, 0.6, STEPS), rates)


def test_watched_counts_steps_and_late_changes():
    watched = Watched.begin({"w": jnp.array([True, True])})
    for alive in ([True, True], [True, False], [True, False], [True, True], [False, True], [False, True]):
        watched = watched.after({"w": jnp.array(alive)}, 5.0)
    assert (int(watched.last), int(watched.late)) == (5, 1)  # of the last tenth: steps 5 and 6


def test_many_gives_every_run_its_own_result_whatever_the_chunk():
    runs = [(number, np.full(2, number)) for number in range(5)]
    for chunk in (2, 5, 8):
        found = many(lambda run: run[0] + run[1].sum(), runs, chunk)
        assert [int(one) for one in found] == [3 * number for number in range(5)]


def test_random_order_keeps_the_number_and_what_is_fixed():
    rng = np.random.default_rng(0)
    alive = rng.random((40, 1)) < 0.4
    fixed = np.arange(40) < 10
    found = structure.shuffled({"w": alive}, rng, {"w": fixed})["w"]
    assert found.sum() == alive.sum() and found.shape == alive.shape and not np.array_equal(found, alive)
    np.testing.assert_array_equal(found[:10], alive[:10])


def test_rewired_keeps_the_number_of_each_row_and_column():
    rng = np.random.default_rng(0)
    alive = rng.random((8, 12)) < 0.4
    found = structure.rewired(alive, rng)
    assert not np.array_equal(found, alive)
    for axis in (0, 1):
        np.testing.assert_array_equal(found.sum(axis), alive.sum(axis))


def test_units_in_another_order_are_matched():
    rng = np.random.default_rng(0)
    units = rng.standard_normal((200, 12))
    assert structure.matched(units, 3 * units[:, rng.permutation(12)] + 1) == pytest.approx(1)
    assert structure.matched(units, rng.standard_normal((200, 12))) < 0.4


def test_pairs_of_runs_are_compared_group_by_group():
    zero = np.array([[True, True, False, False], [True, False, False, False]])
    margins = np.array([[0.5, 0.02, -1.0, -1.0], [0.6, -0.1, -1.0, -1.0]])
    found = widths._pairs(zero, margins)
    assert found["differ"] == 25 and found["overlap"] == pytest.approx(2 / 3)
    # Two of four and three of four at random: 1.5 in common, 3.5 in either.
    assert found["chance"] == pytest.approx(1.5 / 3.5)
    assert found["differing_median_margin"] == 0.02 and found["differing_degenerate"] == 100


@pytest.mark.slow
def test_the_command_runs_writes_and_does_not_run_again(tmp_path, capsys):
    file = tmp_path / "rows.json"
    ablations = ["logistic, ramda, exact, restarts", "logistic, ramda, proximal gradient, restarts"]
    names = [*ablations, "logistic, rmda, 0.25", "mlp, 0.5", "1 times", "RAMDA, 0.3"]
    command.main(["--small", "--json", str(file), "--parts", *names])
    first, printed = file.read_text(), capsys.readouterr()
    rows = json.loads(first)
    assert {study: len(own) > 0 for study, own in rows.items()} == dict.fromkeys(command.STUDIES, True)
    assert all(f"\n{study}\n" in printed.out for study in rows)
    for way in ablation.STAGES[True]:  # the inexact solver has the rates of the exact one
        default = [row for row in rows["ablation"] if (row["way"], row["averaging"]) == (way, ablation.DEFAULT)]
        assert [row["solver"] for row in default] == ["exact", "proximal gradient"]
        assert len({row["rate"] for row in default}) == 1
    command.main(["--small", "--json", str(file), "--parts", *names])
    assert capsys.readouterr().err == "" and file.read_text() == first
