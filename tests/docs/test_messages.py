"""Error messages as they stand in the source: each says the rule, the value and the remedy.

tests/fuzz checks the errors that random inputs raise. These tests check all messages, also of errors that are hard to
raise.
"""

import ast
from pathlib import Path

import pytest

from tests.fuzz.judge import REMEDY, RULE

ROOT = Path(__file__).parents[2]
CLASSES = ("TypeError", "ValueError", "CompactionError", "NotImplementedError")
#: Messages whose other parts are in the values that they contain, or in the error that the package makes of them.
INNER = (
    "format {", "arrays that do not belong", "steps and changes that do not", "an object has one key twice",
    "is not a JSON number", "A move is not hashable", "no axes of {", "In '{folder}': {error}", "{str(error)}",
    "Nothing can be deleted without changing what the model computes: {reasons}",
)  # fmt: skip


def text_of(node):
    """The text of a message, with each value as `{expression}`."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    return "{" + ast.unparse(node.value if isinstance(node, ast.FormattedValue) else node) + "}"


def messages():
    for path in sorted((ROOT / "ramda_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                if ast.unparse(node.exc.func) in CLASSES:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text_of(node.exc.args[0])


def complaint(text):
    """The parts that a message lacks, of rule, value and remedy; "" if it lacks none."""
    if any(part in text for part in INNER):
        return ""
    has_value = "{" in text or " got " in text or "given" in text or "without" in text or "but " in text or "'" in text
    # A value may end a sentence.
    has_remedy = REMEDY.search(text.replace("} ", "}. ")) or any(name in text.lower() for name in ("remedy}", "fresh}"))
    lacks = {"rule": RULE.search(text), "value": has_value, "remedy": has_remedy}
    return ", ".join(name for name, found in lacks.items() if not found)


def test_every_message_says_the_rule_the_value_and_the_remedy():
    found = list(messages())
    assert len(found) > 100
    assert {where: lacks for where, text in found if (lacks := complaint(text))} == {}


@pytest.mark.parametrize(
    ("text", "lacks"),
    [("`a` must be 1, got {a!r}.", "remedy"), ("`a` must be 1; use 1.", "value"), ("{a!r} is odd; use 1.", "rule")],
)
def test_a_message_without_a_part_is_found(text, lacks):
    assert complaint(text) == lacks
