"""The table of `tests/README.md`: what a good optimizer for Optax and Flax must pass, and which tests show it.

A test names its line with `@pytest.mark.contract("no recompilation")`. `python -m tests.contract` writes the table.
"""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
README = TESTS / "README.md"
LINES = (
    "extra arguments are taken",
    "update without params is refused",
    "`optax.tree.map_params`",
    "trees without leaves, scalars",
    "abstract `init`",
    "no recompilation",
    "stable avals",
    "updates in the parameters' dtype, sums in at least float32",
    "zeros exact and positive",
    "without a regularizer: the same as at strength 0, and convergence",
    "closed-form solutions and support",
    "`inject_hyperparams`",
    "schedules equal constants",
    "learning rate 0",
    "donation",
    "`MultiSteps`",
    "`masked` and `partition`",
    "None at the root or a leaf, trees, prefixes, patterns",
    "None leaves",
    "freezing",
    "chains, `apply_if_finite`, conditions, snapshots",
    "`flatten`",
    "SAM; what cannot keep zeros",
    "states found and set by name",
    "`eval_params`",
    "nnx",
    "linen, boxes, callable modules",
    "sharding",
    "checkpoints",
    "`vmap`",
    "examples run, no deprecation",
)
HEAD = "| | what | where |\n|---|---|---|\n"


def marks(function):
    """The lines of the table that a test function's decorators name."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.contract":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def tests_by_line():
    """Maps each line to its tests, as `folder/file.py::function`. Reads the sources, so that nothing is imported."""
    found = {line: [] for line in LINES}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                for line in marks(node):
                    if line not in found:
                        raise ValueError(f"{path.name}::{node.name} names {line!r}; use a line of tests/contract.py.")
                    found[line].append(f"`{path.relative_to(TESTS).as_posix()}::{node.name}`")
    return found


def table():
    rows = (
        f"| {number} | {line} | {', '.join(tests)} |\n"
        for number, (line, tests) in enumerate(tests_by_line().items(), 1)
    )
    return HEAD + "".join(rows)


def written(text):
    """The README's text with the current table, which ends the page."""
    return text[: text.index(HEAD)] + table()


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
