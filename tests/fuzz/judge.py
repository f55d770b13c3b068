"""Runs one input and judges its outcome."""

import random
import re
import traceback
import warnings

from ramda_jax.compaction import CompactionError
from tests.fuzz.draw import Draw
from tests.fuzz.stages import STAGES

#: Words of a rule: what must be, what cannot be, or what was not found.
RULE = re.compile(
    r"\b(must|cannot|needs?|requires?|no|not|nothing|only|both|empty|selects|matches|lacks?|may|wants|has to)\b",
    re.IGNORECASE,
)
#: A value: something in quotes, a number, a literal, or the words after "got".
VALUE = re.compile(r"['\"`\d]|\b(got|None|True|False)\b")
#: A remedy is advice, an imperative at the beginning of a clause.
REMEDY = re.compile(
    r"(?:^|[;:,.(]|\bor|\band|\bby)\s*(use|give|make|save|write|call|load|rename|fix|remove|put|train|leave|name|print|add|"
    r"escape|start|take|split|let|set|trace|correct|delete|see|swap|pass|install|make sure|"
    r"update|read|return)\b",
    re.IGNORECASE,
)


#: Errors that Optax's chain raises about a state before our code sees it.
OPTAX = re.compile(
    r"The number of updates and states has to be the same in chain!|object of type '\w+' has no len\(\)|"
    r"len\(\) of unsized object"
)


def complaint(error):
    """What the message of an error lacks; "" if it is complete."""
    text = str(error)
    if OPTAX.match(text):
        return ""
    if not text:
        return "no message"
    if len(text) > 3000:
        return "a message of more than 3000 characters"
    for what, pattern in (("rule", RULE), ("value", VALUE), ("remedy", REMEDY)):
        if not pattern.search(text):
            return f"a message without {what}"
    return ""


def stage_of(numbers):
    return numbers.choices(list(STAGES), list(STAGES.values()))[0]


def outcome(seed, number, only_stage=None):
    """(stage, outcome, text) of an input; the outcome is "worked", "refused" with the error's class, or "fault"."""
    numbers = random.Random(f"{seed}/{number}")
    stage = stage_of(numbers)
    name = stage.__name__
    if only_stage is not None and name != only_stage:
        return name, "skipped", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # NumPy warns if a number overflows float32 and becomes infinite.
            warnings.filterwarnings("ignore", "overflow encountered in cast")
            result = stage(Draw(numbers))
    except (TypeError, ValueError) as error:
        kind = next(kind for kind in (CompactionError, TypeError, ValueError) if isinstance(error, kind))
        lacks = complaint(error)
        if lacks:
            return name, "fault", f"{kind.__name__} with {lacks}: {last_lines(error)}"
        return name, f"refused, {kind.__name__}", str(error)
    except Exception as error:
        return name, "fault", f"{type(error).__name__}: {last_lines(error)}"
    return name, "refused, CompactionError" if result == "refused" else "worked", ""


def last_lines(error):
    """The error's text with the last place in the package or in the tests."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "ramda_jax" in frame.filename or "tests/" in frame.filename] or frames
    ours = [frame for frame in ours if "site-packages" not in frame.filename] or frames
    where = ours[-1]
    return f"{str(error)[:300]} ({where.filename.split('/main/')[-1]}:{where.lineno})"
