"""The runner: every experiment takes a step on data in the real formats, and runs can stop, continue and report."""

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ramda_jax
from examples import models, report, train
from examples.data import folder, synthetic
from examples.experiments import CONFIGS, METHODS
from examples.training import runner
from examples.training.loop import Trainer
from examples.training.optimizers import learning_rate, make_optimizer, make_plan
from examples.training.summary import best_round
from ramda_jax.structure import regularized_leaves
from tests.examples import realdata
from tests.kills import StopAfter

ROOT = Path(__file__).parents[2]

# Tiny models and little data for the experiments.
TINY_VGG = functools.partial(models.VGG19, widths=(4,) * 5, depths=(1,) * 5)
TINY_RESNET = functools.partial(models.ResNet50, width=4, depths=(1, 1))
TINY_RIGL_RESNET = functools.partial(models.rigl_resnet50, width=4, depths=(1, 1))
TINY_IMAGENET = functools.partial(models.ResNet50, stem="imagenet", width=4, depths=(1, 1))
TINY_TXL = functools.partial(
    models.TransformerXL, layers=2, features=16, heads=2, head_size=8, hidden=16, cutoffs=(20,)
)
TINY_TACOTRON = functools.partial(models.Tacotron2, features=8, rnn=8, prenet=8)
TINY_VIT = functools.partial(models.ViTMIM, features=8, layers=1, heads=2, hidden=8, image_size=28, patch=2)
BATCH = 4
RIGL_STUDY = "resnet50_cifar10_l1_iclr"


def tiny(name):
    """The experiment with a model of tiny width and otherwise its own settings."""
    config = CONFIGS[name]
    task = config.task
    if name.startswith("synthetic"):
        changes = {"read": functools.partial(task.read, samples=200)}
    elif "vgg19" in name:
        changes = {"model": functools.partial(TINY_VGG, 100 if "100" in name else 10)}
    elif "imagenet" in name:
        changes = {"model": TINY_IMAGENET, "side": 32}
    elif "resnet50" in name:
        resnet = TINY_RIGL_RESNET if "l1" in name else TINY_RESNET
        changes = {"model": functools.partial(resnet, 100 if "100" in name else 10)}
    elif "transformer" in name:
        changes = {"model": TINY_TXL, "length": 8, "mem_len": 8}
    elif name == "tacotron2":
        changes = {"model": TINY_TACOTRON}
    elif name == "vit_mim":
        changes = {"model": TINY_VIT, "side": 28}
    elif name == "fashion_lowrank" or "mlp" in name:
        changes = {"model": functools.partial(models.MLP, (784, 8, 10))}
    elif "small" in name:
        changes = {"model": lambda *, rngs, dtype: models.LeNet5((2, 3), (8,), "SAME", rngs=rngs, dtype=dtype)}
    elif "lenet5" in name:
        changes = {"model": functools.partial(models.LeNet5, (2, 3), (8,))}
    else:
        changes = {}
    return dataclasses.replace(config, task=dataclasses.replace(task, **changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write = {
        "mnist": functools.partial(realdata.write_mnist, train=12, test=5),
        "cifar10": realdata.write_cifar10,
        "cifar100": realdata.write_cifar100,
        "imagenet": realdata.write_imagenet,
        "wikitext": realdata.write_wikitext,
        "ljspeech": realdata.write_ljspeech,
    }

    @functools.cache
    def folder_of(name):
        kind = (
            None
            if "synthetic" in name
            else "cifar100"
            if "cifar100" in name
            else "cifar10"
            if "cifar10" in name or name == "vit_mim"
            else "imagenet"
            if "imagenet" in name
            else "wikitext"
            if "transformer" in name
            else "ljspeech"
            if name == "tacotron2"
            else "mnist"
        )
        if kind is None:
            return None
        return root / kind if (root / kind).exists() else write[kind](root / kind)

    return folder_of


def run_steps(trainer, steps):
    state, taken = trainer.init(), 0
    while taken < steps:
        state, taken = trainer.run_round(state, taken, steps, lambda: False)
    return state


# One of each task and each kind of network. Tacotron2 takes as long as all of these together: `make test` runs its
# network's and its task's own tests only.
@pytest.mark.slow_except("transformer_xl-rmda", "vit_mim-rmda", "synthetic_conv-rmda", "fashion_lowrank-rmda")
@pytest.mark.parametrize(("name", "method"), [*((name, "rmda") for name in CONFIGS), (RIGL_STUDY, "rigl")])
def test_every_experiment_trains_on_data_in_the_real_format(name, method, data):
    config = dataclasses.replace(tiny(name), scan=False)
    trainer = Trainer(config, method, data(name), scale=1e-6, batch_size=BATCH)
    before = trainer.init()
    kept = jax.tree.map(np.asarray, before.params)
    losses = []
    # In the studies with l1 the last scales of residual blocks start at zero, so the first step changes little else.
    steps = 2 if "l1" in name else 1
    state, taken = trainer.run_round(before, 0, steps, lambda: False, lambda number, loss: losses.append(float(loss)))
    assert taken == steps and np.isfinite(losses).all()
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), state.params, kept)
    assert np.mean(jax.tree.leaves(moved)) > 0.7  # biases before a batch norm, and dead units, have no gradient
    record, _ = trainer.evaluate(state)
    assert math.isfinite(record[config.task.metric])
    assert set(record["W"]) == set(record["W_hat"])
    assert config.measure in record["W"]


@pytest.mark.slow_except("ramda", "prox_ssi")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_steps_and_is_measured(method, data):
    trainer = Trainer(tiny("mnist_logistic"), method, data("mnist_logistic"), scale=0.004, batch_size=BATCH)
    state = run_steps(trainer, trainer.plan.total)
    record, fresh = trainer.evaluate(state)
    # The run has five stages of 100 epochs with 3 steps, at a scale that leaves 1.2 steps in each stage.
    assert trainer.plan.total == 5 and trainer.plan.per_round == 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(state.params))
    assert 0 <= record["W"]["weighted"] <= 1 and float(fresh.loss_sum) == 0
    if method in ("msgd", "adam", "adamw"):
        assert record["W"] == record["W_hat"]
    if method == "rigl":
        assert record["W"]["unstructured"] > 0.9


@pytest.mark.slow
def test_changes_of_the_ranks_are_counted_from_round_to_round_in_w_too(data):
    config = tiny("fashion_lowrank").with_method("ramda", strength=10.0, averaging=1.0)
    trainer = Trainer(config, "ramda", data("fashion_lowrank"), batch_size=BATCH)
    state = run_steps(trainer, 1)
    record, state = trainer.evaluate(state)
    shapes = [leaf.shape for _, leaf, _ in regularized_leaves(config.regularizer, state.params)]
    assert record["W"]["low_rank"] > 0
    assert record["changed_W"] == round(record["W"]["low_rank"] * sum(map(min, shapes)))  # from full rank at first
    assert trainer.evaluate(state)[0]["changed_W"] == 0  # no step since


@pytest.mark.parametrize("name", CONFIGS)
def test_the_settings_of_every_method_make_optimizers(name):
    config = CONFIGS[name]
    params = {"layers": {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}}
    for method, settings in config.methods.items():
        plan = make_plan(config, settings, 3, 1e-3)
        make_optimizer(method, config, plan, params).init(params)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_experiment_has_settings_for_every_method_and_says_whose(name, method):
    config = CONFIGS[name]
    settings = config.methods[method]
    assert settings.learning_rate > 0 and settings.source
    assert (settings.averaging is not None) == (method in ("ramda", "rmda"))
    assert (settings.strength > 0) == (method not in ("msgd", "adam", "adamw", "rigl"))
    assert set(config.reported) <= {
        method for method, value in config.methods.items() if value.source == "the paper's"
    } | {"msgd"}


def test_experiments_that_are_not_in_the_papers_do_not_claim_their_settings():
    own = [name for name, config in CONFIGS.items() if config.table == "none" or name.startswith("synthetic")]
    assert own == ["synthetic_logistic", "synthetic_conv", "fashion_mlp", "transformer_xl_small"]
    for name in own:
        assert not CONFIGS[name].reported
        assert "the paper's" not in {method.source for method in CONFIGS[name].methods.values()}


def test_stages_shrink_alike_and_have_a_step_each():
    config = CONFIGS["vgg19_cifar10"]
    plan = make_plan(config, config.methods["ramda"], 391, 1.0)
    assert plan.total == 391_000 and plan.ends == (78_200, 156_400, 234_600, 312_800)
    plan = make_plan(config, config.methods["ramda"], 391, 0.1)
    assert plan.total == 39_100 and plan.ends == (7_820, 15_640, 23_460, 31_280)
    assert make_plan(config, config.methods["ramda"], 391, 1e-9).ends == (1, 2, 3, 4)
    with pytest.raises(ValueError, match="`scale` must be above 0"):
        make_plan(config, config.methods["ramda"], 391, 0.0)


def test_the_iclr_schedules_are_the_papers_formulas():
    config = CONFIGS["fashion_mlp_iclr"]
    sgd = config.methods["prox_sgd"]
    rmda = config.methods["rmda"]
    plan = make_plan(config, sgd, 10, 1.0)
    rate = learning_rate(sgd, plan)
    averaging = ramda_jax.stage_growth(rmda.averaging, make_plan(config, rmda, 10, 1.0).ends)
    rmda_rate = learning_rate(rmda, make_plan(config, rmda, 10, 1.0))
    for epoch in (0, 49, 50, 149, 150, 260, 499):
        assert float(rate(10 * epoch)) == pytest.approx(10 ** (-1 - epoch // 50), rel=1e-4)
        assert float(rmda_rate(10 * epoch)) == pytest.approx(max(1e-5, 10 ** (-1 - epoch // 50)), rel=1e-4)
        assert float(averaging(10 * epoch)) == pytest.approx(min(1, 10 ** (-2 + epoch // 50)), rel=1e-4)


@pytest.mark.slow
def test_an_epoch_by_scan_is_the_same_as_step_by_step(data):
    config = tiny("mnist_logistic")
    folder_ = data("mnist_logistic")
    scanned = Trainer(config, "ramda", folder_, scale=0.01, batch_size=5)
    stepped = Trainer(dataclasses.replace(config, scan=False), "ramda", folder_, scale=0.01, batch_size=5)
    assert scanned.data.steps_per_epoch == 3  # two batches of 5 and one of 2
    a, b = (run_steps(trainer, 6) for trainer in (scanned, stepped))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), a.params, b.params)
    assert int(a.changed) == int(b.changed)


def test_batch_statistics_are_learnt_and_used(data):
    trainer = Trainer(tiny("vgg19_cifar10"), "msgd", data("vgg19_cifar10"), scale=1e-3, batch_size=BATCH)
    start = trainer.init()
    before = jax.tree.map(np.asarray, start.rest)
    state = run_steps(trainer, 3)
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), state.rest, before)
    assert all(jax.tree.leaves(moved)) and jax.tree.leaves(moved)
    model = nnx.merge(trainer._graphs[False], state.params, state.rest)
    assert all(node.use_running_average for _, node in nnx.iter_graph(model) if isinstance(node, nnx.BatchNorm))


@pytest.mark.slow
def test_the_language_models_memory_starts_empty_in_every_epoch(data):
    trainer = Trainer(tiny("transformer_xl_small"), "rmda", data("transformer_xl"), scale=1e-3, batch_size=BATCH)
    per_epoch = trainer.data.steps_per_epoch
    assert per_epoch > 2
    state, _ = trainer.run_round(trainer.init(), 0, per_epoch - 1, lambda: False)
    assert int(state.carry.filled.min()) == 8 and bool(state.carry.hidden.any())
    seen = []
    original = trainer._step
    trainer._step = lambda state, *rest: (seen.append(int(state.carry.filled.max())), original(state, *rest))[1]
    trainer.run_round(state, per_epoch - 1, per_epoch + 2, lambda: False)
    assert seen == [8, 0, 8]


@pytest.mark.slow
def test_bfloat16_computes_in_bfloat16_and_keeps_parameters_in_float32(data):
    trainer = Trainer(tiny("vit_mim"), "ramda", data("vit_mim"), scale=1e-6, batch_size=BATCH, dtype=jnp.bfloat16)
    state = run_steps(trainer, 1)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}
    model = trainer._model(state.params, state.rest, False)
    assert model(jnp.zeros((1, 28, 28, 3)), jnp.zeros((1, 14, 14), bool)).dtype == jnp.bfloat16


# Runs


def one_trainer():
    """A function that makes a trainer at the first call, and returns it at the others."""
    made = []

    def trainer(*args, **settings):
        if not made:
            made.append((args, settings, Trainer(*args, **settings)))
        assert (args, settings) == made[0][:2]
        return made[0][2]

    return trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method", "stops"), [("vgg19_cifar10", "ramda", (9,)), ("transformer_xl_small", "rmda", (7,))]
)
def test_a_run_that_is_stopped_and_continued_ends_where_it_would_have(name, method, stops, data, tmp_path, monkeypatch):
    run = runner.Run(name, method, scale=3e-3 if "vgg" in name else 1e-3, batch_size=BATCH, seed=3)
    config = dataclasses.replace(tiny(name), length=1000 if "vgg" in name else 20_000, evaluate_every=1)
    if "transformer" in name:
        config = dataclasses.replace(config, evaluate_every=5)
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        # One trainer, and so one compilation, for both beginnings. A fresh one continues the run.
        patch.setattr(runner, "Trainer", one_trainer())
        whole = runner.train(run, data(name), tmp_path / "whole", config)
        for asked in stops:
            assert runner.train(run, data(name), stopped, config, StopAfter(asked)) is None
            assert not (stopped / "report.json").exists()
    continued = runner.train(run, data(name), stopped, config)
    assert whole["steps"] == continued["steps"] >= 15
    for key in (whole["metric"], "training_loss", "sparsity_W", "sparsity_W_hat", "last_change_step_W"):
        assert continued[key] == pytest.approx(whole[key], rel=1e-5), key
    steps = [record["step"] for record in map(json.loads, (stopped / "log.jsonl").read_text().splitlines())]
    assert steps == sorted(steps)


def test_the_report_is_a_json_a_table_and_a_figure(data, tmp_path, capsys, monkeypatch):
    arguments = ["--data-dir", str(data("mnist_logistic")), "--scale", "0.02", "--batch-size", "4", "--seed", "2"]
    out = tmp_path / "run"
    made = train.main(["mnist_logistic", "--method", "rmda", *arguments, "--out", str(out)])
    printed = capsys.readouterr().out
    for words in (
        "weighted group sparsity (NeurIPS), W",
        "kernel-wise sparsity (ICLR), W_hat",
        "57.02",
        "seconds per epoch",
    ):
        assert words in printed
    assert json.loads((out / "report.json").read_text()) == made
    assert (out / "report.png").read_bytes()[1:4] == b"PNG"
    assert made["reported"] == {"metric": "91.34", "sparsity": "57.02"}
    assert made["steps"] == 30 and made["seed"] == 2 and made["batch_size"] == 4
    assert 0 <= made["accuracy"] <= 1 and made["objective"] > 0
    assert made["rounds"]["accuracy"][-1] == pytest.approx(made["accuracy"], rel=1e-4)
    assert len(made["rounds"]["epoch"]) == len(made["rounds"]["changed_W"]) == len(made["rounds"]["W_hat"]) == 10
    # A finished run is printed again, without training or measuring.
    monkeypatch.setattr(runner, "Trainer", None)
    assert train.main(["mnist_logistic", "--method", "rmda", *arguments, "--out", str(out)]) == made
    assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_a_run_of_a_few_steps_is_the_beginning_of_the_whole_one(data, tmp_path, capsys):
    arguments = ["lenet5_small_glasso_iclr", "--method", "rmda", "--data-dir", str(data("mnist")), "--batch-size", "4"]
    made = train.main([*arguments, "--steps", "7", "--valid-batches", "1", "--out", str(tmp_path / "run")])
    assert made["steps"] == 7 and made["stage_ends"] == [] and made["scale"] == 1 and made["objective"] is None
    losses = made["step_losses"]
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 6, 7]
    report.main([str(tmp_path)])
    printed = capsys.readouterr().out
    first, last = (np.mean([loss for _, loss in part]) for part in (losses[:5], losses[-5:]))
    assert f"{first:.4g} / {last:.4g}" in printed and "the first steps of the schedule" in printed


@pytest.mark.slow
def test_a_scale_of_the_learning_rate_scales_the_first_step_and_stands_in_the_table(data, tmp_path, capsys):
    def first_step(scale):
        trainer = Trainer(
            tiny("mnist_logistic"), "msgd", data("mnist_logistic"), batch_size=BATCH, learning_rate_scale=scale
        )
        before = jax.device_get(trainer.init().params)
        state, _ = trainer.run_round(trainer.init(), 0, 1, lambda: False)
        return jax.tree.map(lambda a, b: a - b, jax.device_get(state.params), before)

    whole, quarter = first_step(1.0), first_step(0.25)
    chex.assert_trees_all_close(quarter, jax.tree.map(lambda step: step / 4, whole), rtol=1e-4, atol=1e-7)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(whole)) > 1e-4

    arguments = ["mnist_logistic", "--method", "msgd", "--data-dir", str(data("mnist_logistic")), "--batch-size", "4"]
    arguments += ["--steps", "2", "--valid-batches", "1"]
    for scale in ("1", "0.25"):
        made = train.main([*arguments, "--learning-rate-scale", scale, "--out", str(tmp_path / scale)])
        rate = CONFIGS["mnist_logistic"].methods["msgd"].learning_rate
        assert made["settings"]["learning_rate"] == float(scale) * rate
    capsys.readouterr()
    report.main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.count("**mnist_logistic**") == 2, "runs of different learning rates are not seeds of one"
    assert printed.count("0.25 times the learning rates") == 1


def test_a_folder_of_another_run_is_refused_and_says_what_differs(data, tmp_path):
    arguments = ["mnist_logistic", "--data-dir", str(data("mnist_logistic")), "--out", str(tmp_path), "--scale", "1e-4"]
    arguments += ["--batch-size", "4"]
    train.main([*arguments, "--method", "rmda"])
    with pytest.raises(SystemExit, match=r"holds another run .method 'rmda', not 'ramda'.; use another --out"):
        train.main([*arguments, "--method", "ramda"])
    elsewhere = realdata.write_mnist(tmp_path / "elsewhere", train=12, test=5)
    with pytest.raises(SystemExit, match=r"holds another run .data_dir '.*', not '.*elsewhere'.; use another --out"):
        train.main([*arguments, "--method", "rmda", "--data-dir", str(elsewhere)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name an experiment"),
        (["mnist_logistic"], "MNIST needs --data-dir"),
        (["vgg19_cifar10"], "CIFAR-10 needs --data-dir"),
        (["tacotron2", "--data-dir", "nowhere"], "nowhere, which lacks\n  metadata.csv"),
        (["transformer_xl"], "wiki.train.tokens"),
        (["imagenet_resnet50"], "train/CLASS"),
        (["mnist_logistic", "--scale", "0"], "--scale must be above 0"),
        (["mnist_logistic", "--learning-rate-scale", "0"], "--learning-rate-scale must be finite and above 0"),
        (["mnist_logistic", "--learning-rate-scale", "nan"], "--learning-rate-scale must be finite and above 0"),
        (["mnist_logistic", "--devices", "0"], "--devices must be at least 1"),
        (["mnist_logistic", "--devices", "1000"], "--devices must divide the batch size, got 1000 for 128"),
        (["mnist_logistic", "--steps", "0"], "--steps must be at least 1"),
        (["mnist_logistic", "--seed", "-1"], "--seed must be at least 0"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        train.main([*arguments, *(["--out", str(tmp_path)] if arguments else [])])


def test_the_list_has_every_experiment_with_its_table(capsys):
    train.main(["--list"])
    printed = capsys.readouterr().out
    for name, config in CONFIGS.items():
        line = next(line for line in printed.splitlines() if line.startswith(name + " "))
        assert config.paper in line and config.table in line and config.row in line


@pytest.mark.slow
def test_ctrl_c_stops_and_the_same_command_continues(tmp_path):
    command = [sys.executable, "-m", "examples.train", "synthetic_conv", "--method", "rmda", "--scale", "0.05"]
    command += ["--out", str(tmp_path / "run")]
    import signal
    import time

    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "log.jsonl").exists() or "W_hat" not in (tmp_path / "run" / "log.jsonl").read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=200)
    assert process.returncode == 130 and "the same command continues" in printed
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "report.json").read_text())["steps"] == 589


@pytest.mark.slow
def test_devices_share_a_batch_and_get_what_one_would(tmp_path):
    code = """
import sys, jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from examples.experiments import CONFIGS
from examples.training.loop import Trainer
trained = []
for devices in (1, 2):
    trainer = Trainer(CONFIGS["synthetic_conv"], "ramda", scale=1e-3, batch_size=100, devices=devices)
    state, _ = trainer.run_round(trainer.init(), 0, 5, lambda: False)
    trained.append(jax.tree.map(np.asarray, state.params))
assert all(len(leaf.devices()) == 2 for leaf in jax.tree.leaves(state.params))
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *trained)
print("equal")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


# The table of several runs


def test_the_joined_table_has_means_deviations_and_the_papers_row(tmp_path, capsys):
    row = {
        "config": "mnist_logistic",
        "method": "rmda",
        "scale": 1.0,
        "metric": "accuracy",
        "measure": "weighted",
        "paper": "NeurIPS 2024",
        "table": "Table 7",
        "row": "Linear, MNIST",
        "identified": None,
        "steps_per_epoch": 469,
        "steps": 234_500,
        "last_change_epoch_W": 461,
        "last_change_epoch_W_hat": 460,
        "seconds_per_epoch": 0.4,
        "reported": {"metric": "91.34", "sparsity": "57.02"},
        "batch_size": 128,
        "dtype": "float32",
        "stops_after": None,
        "step_losses": None,
        "sparsest_epoch": {"W": 0.7, "W_hat": 0.7},
        "valid_batches": None,
        "seconds": 60.0,
        "rounds": {"epoch": [1.0, 2.0], "W": [0.0, 0.5], "W_hat": [0.1, 0.6], "changed_W": [3, 0]},
    }
    for seed, accuracy in ((1, 0.91), (2, 0.93)):
        place = tmp_path / f"rmda-{seed}"
        place.mkdir()
        entry = row | {"seed": seed, "accuracy": accuracy}
        entry |= {"sparsity_W": {"weighted": 0.5, "kernel": 0.25}, "sparsity_W_hat": {"weighted": 0.6, "kernel": 0.25}}
        (place / "report.json").write_text(json.dumps(entry))
    report.main([str(tmp_path), "--figure", str(tmp_path / "runs.png")])
    printed = capsys.readouterr().out
    assert "| rmda" in printed and "92.00 ± 1.41" in printed and "91.34" in printed and "57.02" in printed
    assert "50.00 ± 0.00 / 60.00 ± 0.00" in printed and "25.00 ± 0.00 / 25.00 ± 0.00" in printed
    assert "weighted, W / W_hat" in printed and "kernel-wise, W / W_hat" in printed
    assert (tmp_path / "runs.png").read_bytes()[1:4] == b"PNG"


def test_a_folder_without_reports_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no report"):
        report.main([str(tmp_path)])


def test_the_folders_loader_and_the_synthetic_data_are_what_the_configs_name():
    assert CONFIGS["imagenet_resnet50"].task.read is folder.FolderData
    assert CONFIGS["synthetic_conv"].task.read is synthetic.conv_net


@pytest.mark.parametrize("values", [(math.nan, 1.0, 3.0, 2.0), (1.0, 3.0, math.nan, 2.0), (3.0, 1.0, 2.0, math.nan)])
def test_a_round_with_nan_is_not_the_best(values):
    rounds = [{"loss": value} for value in values]
    assert best_round(rounds, "loss", higher_is_better=True)["loss"] == 3
    assert best_round(rounds, "loss", higher_is_better=False)["loss"] == 1
    assert math.isnan(best_round([{"loss": math.nan}] * 2, "loss", True)["loss"])
