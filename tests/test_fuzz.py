"""Random arguments work, or are refused by TypeError, ValueError or CompactionError with a remedy.

`python -m tests.fuzz` runs any number of inputs.
"""

import pytest

from tests.fuzz.__main__ import main, run
from tests.fuzz.judge import complaint, outcome
from tests.fuzz.stages import STAGES


@pytest.mark.parametrize("count", [200, pytest.param(4000, marks=pytest.mark.slow)])
def test_random_inputs_work_or_are_refused_with_rule_value_and_remedy(count):
    counts, _, faults = run(1, range(count), None)
    assert not faults
    # Every stage ran, and some inputs worked and some were refused.
    assert {stage for stage, _ in counts} == {stage.__name__ for stage in STAGES}
    found = {kind: sum(n for (_, wanted), n in counts.items() if wanted == kind) for _, kind in counts}
    assert found["worked"] > 0.2 * count
    for kind in ("TypeError", "ValueError", "CompactionError"):
        assert found[f"refused, {kind}"] > 0.05 * count


def test_an_input_is_its_number_and_seed():
    assert [outcome(3, number) for number in (5, 3, 4)] == [outcome(3, number) for number in (3, 4, 5)][2:] + [
        outcome(3, number) for number in (3, 4)
    ]


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (ValueError(""), "no message"),
        (ValueError("'dict' object is odd"), "a message without rule"),
        (ValueError("it must be something else; use that"), "a message without value"),
        (ValueError("`x` must be above 0, got -1."), "a message without remedy"),
        (ValueError("`x` must be above 0, got -1; use 1.0."), ""),
    ],
)
def test_messages_are_judged(error, lacks):
    assert complaint(error) == lacks


def test_the_command_prints_its_figures_and_repeats_an_input(capsys):
    assert main(["--inputs", "20", "--stage", "plan_json"]) == 0
    printed = capsys.readouterr().out
    assert "| plan_json |" in printed and "0 faults; seed 0" in printed
    main(["--only", "3"])
    assert capsys.readouterr().out.splitlines()[0] in {stage.__name__ for stage in STAGES}
