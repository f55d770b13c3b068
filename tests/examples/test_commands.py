"""The command lines of the examples: their list, their help and their errors."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples import __main__ as examples_main

ROOT = Path(__file__).parents[2]
NAMES = re.findall(r"python -m examples\.(\w+)", examples_main.listing())
WITH_OPTIONS = [name for name in NAMES if name != "custom_regularizer"]  # it has no options


def exit_of(name, *arguments):
    """The exception with which the command exits."""
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"examples.{name}").main([*arguments])
    return caught.value


def test_the_list_has_every_command_and_what_it_does():
    done = subprocess.run([sys.executable, "-m", "examples"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(examples_main.listing()) and "--help" in done.stdout
    assert {"digits", "make_it_small", "train", "report", "sweep"} <= set(NAMES)
    assert not {"rigl", "__main__"} & set(NAMES)
    assert all(
        re.fullmatch(r"python -m examples\.\w+ +[A-Z].*[.]", line) for line in examples_main.listing().split("\n")
    )


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_help_names_the_command_and_no_value_that_only_python_has(name, capsys):
    assert exit_of(name, "--help").code == 0
    printed = capsys.readouterr().out
    assert f"usage: python -m examples.{'train' if name == 'mnist_logistic' else name} " in printed
    assert not re.search(r"\b(None|NoneType|class)\b", printed)


@pytest.mark.parametrize("name", [name for name in WITH_OPTIONS if name not in ("train", "report", "mnist_logistic")])
def test_every_option_has_a_help(name, capsys):
    exit_of(name, "--help")
    options = re.split(r"\n  (?=-)", capsys.readouterr().out.split("options:")[1])
    assert len(options) > 2
    for option in options[1:]:
        assert re.match(r"(-h, )?--[\w-]+( \S+)?\s+\S+", option), option


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("digits", ["--epochs", "0"], "--epochs: must be a whole number of at least 1, got '0'"),
        ("digits", ["--seed", "x"], "--seed: must be a whole number of at least 0, got 'x'"),
        ("sparse_to_small", ["--round-to", "0"], "--round-to: must be a whole number of at least 1, got '0'"),
        ("make_it_small", ["--epochs", "1"], "--epochs must be long enough .* got 10 steps; use more epochs"),
        ("make_it_small", ["--keep", "2"], "--keep must be above 0 and below 1, got 2.0; use for example"),
        ("make_it_small", ["--net", "lenet5"], "go together.*; give both or neither"),
        ("data_parallel", ["--steps", "3"], "--steps: must be a whole number of at least 4, got '3'"),
        ("multiprocess", ["--count", "3"], "--count must divide --batch, got 3 for 128; use another"),
        ("sweep", ["--steps", "1"], "--steps: must be a whole number of at least 2, got '1'"),
    ],
)
def test_an_error_says_the_rule_and_the_value(name, arguments, message, capsys):
    assert exit_of(name, *arguments).code == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("train", [], "Name an experiment; `python -m examples.train --list` prints them."),
        (
            "train",
            ["mnist_logistik"],
            "There is no experiment 'mnist_logistik'; did you mean 'mnist_logistic'?.*list",
        ),
        ("train", ["xyz"], "There is no experiment 'xyz'; `python -m examples.train --list` prints them."),
        ("train", ["None"], "There is no experiment 'None'"),
        ("report", [], "Name reports or folders of them, such as `python -m examples.report docs/results`."),
        ("report", ["/nowhere"], "There is no report in /nowhere; `python -m examples.train` writes them."),
    ],
)
def test_a_message_names_the_command_that_helps(name, arguments, message):
    assert re.search(message, str(exit_of(name, *arguments).code))


def test_a_number_that_is_none_is_refused_as_a_number(capsys):
    assert exit_of("train", "mnist_logistic", "--batch-size", "None").code == 2
    printed = capsys.readouterr().err
    assert "--batch-size" in printed and "NoneType" not in printed
