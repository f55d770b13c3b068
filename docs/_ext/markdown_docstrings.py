"""Docstrings are written as Markdown; autodoc wants reStructuredText: code, tables and formulas are put into that."""

import re

CODE = re.compile(r"(?<![`:\\])`([^`\n]+)`(?!`)")
#: What reStructuredText would take for markup outside of code: a bar, and a star that emphasises nothing.
MARKUP = re.compile(r"\||\*(?!\w+\*)(?<!\w\*)")
NOT_SECTIONED = ("attribute", "property")


def _text(line, quote="``"):
    """A line of Markdown as one of reStructuredText."""
    parts = CODE.split(line)
    return "".join(f"{quote}{part}{quote}" if i % 2 else MARKUP.sub(r"\\\g<0>", part) for i, part in enumerate(parts))


def _table(lines):
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if not set(line) <= set(" |-")
    ]
    result = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        result += [f"   {'* -' if number == 0 else '  -'} {_text(cell)}" for number, cell in enumerate(row)]
    return [*result, ""]


def _blocks(lines):
    """Lines as (kind, lines): a paragraph, a table, or what is indented."""
    blocks = []
    for line in lines:
        kind = "text"
        if line.startswith("|"):
            kind = "table"
        elif line.startswith("    ") or (not line and blocks and blocks[-1][0] == "indented"):
            kind = "indented"
        if not blocks or blocks[-1][0] != kind:
            blocks.append((kind, []))
        blocks[-1][1].append(line)
    return blocks


def _paragraphs(lines):
    """Lines with each `code` that spans two of them put on one."""
    text = re.sub(r"`[^`]+`", lambda match: re.sub(r"\n\s*", " ", match[0]), "\n".join(lines))
    return text.split("\n")


def convert(app, what, name, obj, options, lines):
    """For `autodoc-process-docstring`, before napoleon reads the sections."""
    result = []
    section = ""
    for kind, block in _blocks(lines):
        if kind == "text":
            # The heading of a section comes right before what is indented under it.
            last = next((line for line in reversed(block) if line), "")
            section = last if re.fullmatch(r"[A-Z]\w*:", last) else ""
        if kind == "table":
            result += _table(block)
        elif kind == "indented" and not section:
            result += [".. code-block:: none", "", *block, ""]
        elif kind == "indented" and section == "Example:":
            result += block
        else:
            # Between single backticks is code, and in the references a title.
            quote = "*" if section == "References:" else "``"
            result += [_text(line, quote) for line in _paragraphs(block)]
    lines[:] = result
    if what in NOT_SECTIONED:
        app.env.temp_data["docstring"] = result


def restore(app, what, name, obj, options, lines):
    """After napoleon, which takes what stands before a colon in the docstring of an attribute for its type."""
    if what in NOT_SECTIONED:
        lines[:] = app.env.temp_data["docstring"]


def skip_fields(app, what, name, obj, skip, options):
    """No entries of their own for a NamedTuple's fields, which its docstring has."""
    if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number"):
        return True
    return None


def setup(app):
    """Registers all of them."""
    app.connect("autodoc-process-docstring", convert, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
    app.connect("autodoc-skip-member", skip_fields)
    return {"parallel_read_safe": True, "version": "1"}
