"""Lists the examples.

python -m examples
"""

import ast
from pathlib import Path

FOLDER = Path(__file__).parent


def listing():
    """Each example that is a command, with the first line of its docstring."""
    rows = []
    for path in sorted(FOLDER.glob("*.py")):
        text = path.read_text()
        if '__name__ == "__main__"' in text and path.name != Path(__file__).name:
            rows.append((f"python -m examples.{path.stem}", str(ast.get_docstring(ast.parse(text))).splitlines()[0]))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {line}" for name, line in rows)


if __name__ == "__main__":
    print(listing())
    print("\n`--help` after a command shows its options; examples/README.md says what each example teaches.")
