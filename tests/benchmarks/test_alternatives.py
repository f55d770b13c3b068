"""The benchmark against pruning: its groups and training runs are as described, and its command runs."""

import json

import jax
import numpy as np
import optax
import pytest

import ramda_jax
from benchmarks.alternatives import __main__ as command
from benchmarks.alternatives import diagnosis
from benchmarks.alternatives.compare import CHECKED_RATES, CHECKED_RATIOS, TUNING_SEEDS
from benchmarks.alternatives.methods import METHODS, TIMES, Choice
from benchmarks.alternatives.problems import digits, net_logits, net_shapes
from benchmarks.alternatives.report import tables
from benchmarks.alternatives.training import Lab


@pytest.fixture(scope="module")
def lab():
    return Lab(digits(small=True))


@pytest.mark.slow
def test_groups_are_the_channels_and_units_and_are_counted_as_the_small_net_has_them(lab):
    groups, (params, _) = lab.groups, lab.start(0)
    assert sorted(len(parts[0].rows) for parts in groups.coupling.parts.values()) == [4, 6, 8]
    assert groups.whole == sum(leaf.size for leaf in jax.tree.leaves(params))
    for over in ("all", "layer"):
        for keep in (0.6, 0.3):
            alive = groups.best(groups.by_size(params), keep, over)
            small = groups.small(params, alive)
            size = sum(leaf.size for leaf in jax.tree.leaves(small))
            # The size is at most what was asked for. One more group would exceed it, and each group has less than a
            # quarter of the entries.
            assert size == groups.count(alive) and (keep - 0.25) * groups.whole < size <= keep * groups.whole
            left = 1 - groups.removed({f"coupled/{name}": one for name, one in alive.items()})
            assert float(left) == pytest.approx(size / groups.whole)
            whole = lab.problem.apply(groups.held(params, alive), groups.example)
            np.testing.assert_allclose(lab.problem.traced(small, groups.example), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_training_with_the_zeros_held_is_training_the_small_net(lab):
    groups, (params, batches) = lab.groups, lab.start(1)
    alive = groups.best(groups.by_saving(params), 0.4, "all")
    held, _ = lab.adam(params, batches, 0, 5, 1e-3, alive, cosine=True)
    small, _ = lab.adam(groups.small(params, alive), batches, 0, 5, 1e-3, cosine=True)
    for leaf, wanted in zip(jax.tree.leaves(groups.small(held, alive)), jax.tree.leaves(small), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-3, atol=1e-5)
    assert not any(norms[~alive[name]].any() for name, norms in groups.norms(held).items())


def test_a_training_is_batches_of_every_image_once_an_epoch(lab):
    order = np.asarray(lab.problem.order(3))
    assert order.shape == (lab.problem.num_steps, lab.problem.batch_size)
    epoch = order[: lab.problem.epoch_steps].ravel()
    assert len(set(epoch.tolist())) == epoch.size
    assert lab.problem.num_steps > TIMES


@pytest.mark.slow
def test_ramda_with_its_zeros_held_is_the_recipe_of_the_library(lab, monkeypatch):
    groups, (params, batches), steps = lab.groups, lab.start(0), 16
    # RAMDA's learning rate is the problem's multiple of Adam's.
    monkeypatch.setattr(lab, "problem", lab.problem._replace(ratio=4.0))
    found, alive = METHODS["RAMDA, zeros held"].find(lab, 0.3, Choice(3e-3, 0.5), 0, steps)
    target = ramda_jax.Target(0.7, of=groups.removed)
    recipe = ramda_jax.ramda_then_hold(4.0 * 3e-3, groups.regularizer, target, total_steps=2 * steps)

    @jax.jit
    def step(params, state, batch):
        inputs = lab.problem.batch(lab.problem.data["train"], batch)
        updates, state = recipe.update(jax.grad(lab.problem.loss)(params, *inputs), state, params)
        return optax.apply_updates(params, updates), state

    state = recipe.init(params)
    for batch in batches[:steps]:
        params, state = step(params, state, batch)
    for leaf, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-3, atol=1e-5)
    assert 0 < sum(int(one.sum()) for one in alive.values()) < 18


def test_all_images_but_those_to_test_on_are_divided_again(lab):
    seen = [np.concatenate([lab.problem.data[part][0] for part in ("train", "val")])]
    for seed in (0, 1):
        divided = lab.problem.divided(seed)
        assert divided.data.keys() == {"train", "val"} and len(divided.data["train"][0]) == 1000
        seen.append(np.concatenate([divided.data[part][0] for part in ("train", "val")]))
    assert np.any(seen[1] != seen[2])
    whole, *others = (np.sort(images.reshape(len(images), -1), axis=0) for images in seen)
    for other in others:
        np.testing.assert_array_equal(whole, other)
    # A text is one array, whose parts are others' text.
    text = lab.problem._replace(data={"train": np.arange(9), "val": np.arange(3)})
    assert text.divided(0) is text


@pytest.mark.slow
def test_the_diagnosis_has_a_row_of_each_variant(capsys):
    found = diagnosis.main(["--small", "--splits", "2"])
    assert all(name in found for name in diagnosis.VARIANTS) and found in capsys.readouterr().out
    assert found.count("(+0.00 ± 0.00)") >= len(diagnosis.KEEPS)


def test_rows_that_are_tuning_are_in_no_table():
    row = {"problem": "p", "method": "m", "keep": 0.3, "seed": 0, "rate": 1e-3, "split": 0.5, "own": 0.0}
    row |= {"left": 0.29, "flops_left": 0.4, "score": 90.0}
    shown = tables([row, row | {"seed": 1, "score": 91.0}, row | {"score": 10.0, "tuning": True}])
    assert "90.50 (90.00 91.00)" in shown and "10.00" not in shown
    # With many seeds the table has the standard error of the mean.
    # The rates that were tried have a table of their own.
    checked = tables([row, row | {"score": 80.0, "ratio": 3.0, "tuning": True, "check": True}]).splitlines()[-1]
    assert [cell.strip() for cell in checked.split("|")[1:-1]] == ["p", "m", "1e-03", "3", "80.000"]
    many = tables([row | {"seed": seed, "score": 90.0 + seed} for seed in range(5)])
    assert "92.00 ± 0.71 (5)" in many
    assert "-3.321 (-3.321)" in tables([row | {"score": -3.321}])


@pytest.mark.slow
def test_the_command_runs_every_method_and_goes_on_from_its_file(tmp_path, capsys):
    file, picture = tmp_path / "rows.json", tmp_path / "picture.png"
    text = tmp_path / "text"
    text.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 64 * 65), ("valid", 1000), ("test", 1000)):
        (text / f"wiki.{part}.tokens").write_text("".join(rng.choice(list("abcde \n"), count)))
    arguments = ["--small", "--keeps", "0.3", "--seeds", "1", "--json", str(file), "--png", str(picture)]
    command.main([*arguments, "--problems", "digits", "--methods", "magnitude, by layer"])
    # Tuning takes three learning rates and one more split, with all of its seeds each. Then one run is reported.
    tuned = json.loads(file.read_text())
    assert ["tuning" in row for row in tuned] == [True] * 4 * len(TUNING_SEEDS) + [False]
    assert [row["seed"] for row in tuned] == [*TUNING_SEEDS] * 4 + [0]
    command.main([*arguments, "--problems", "digits", "--untuned"])
    rows = json.loads(file.read_text())
    reported = [row for row in rows if "tuning" not in row]
    assert {row["method"] for row in reported} == {"dense", "small from scratch", *METHODS}
    assert all(row["left"] <= 0.3 for row in reported if row["method"] != "dense")
    command.main([*arguments, "--problems", "digits"])
    assert json.loads(file.read_text()) == rows
    held = ["--methods", "RAMDA, zeros held", "--untuned"]
    command.main([*arguments, "--problems", "text", "--text", str(text), *held])
    added = json.loads(file.read_text())[len(rows) :]
    assert [row["problem"] for row in added] == ["text"] and added[0]["score"] < 0
    assert "text: score" in capsys.readouterr().out and picture.stat().st_size > 0
    command.main([*arguments, "--problems", "digits", "--rates"])
    checked = json.loads(file.read_text())[len(rows) + 1 :]
    best = max(checked[: len(CHECKED_RATES)], key=lambda row: row["score"])["rate"]
    assert [row["rate"] for row in checked] == [*CHECKED_RATES, *[best] * len(CHECKED_RATIOS)]
    assert [row["ratio"] for row in checked[len(CHECKED_RATES) :]] == [*CHECKED_RATIOS]
    assert all("tuning" in row for row in checked)


@pytest.mark.slow
def test_convolutions_as_products_are_convolutions():
    shapes = net_shapes(8, (3, 5), (4, 2))
    params = {
        name: {part: jax.random.normal(jax.random.key(len(name) + len(part)), shape) for part, shape in layer.items()}
        for name, layer in shapes.items()
    }
    problem = digits(small=True)
    images = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    np.testing.assert_allclose(net_logits(params, images), problem.traced(params, images), rtol=2e-4, atol=2e-4)
