"""Tables as text."""

from collections.abc import Collection, Sequence


def text_table(
    rows: Sequence[Sequence[str]], right: Collection[int] = (), spill: tuple[int, int] | None = None
) -> list[str]:
    """The lines of a table whose columns are as wide as their widest cell, two spaces apart.

    Args:
        rows: lists of cells, all of the same length; the first is usually the header.
        right: the numbers of right-aligned columns; all others are left-aligned.
        spill: (row, column) of a cell that may extend into the next cell, which is empty.

    Returns:
        A line for each row, without spaces at its end.

    Example:
        >>> print("\\n".join(text_table([("leaf", "groups"), ("kernel", "4")], right=[1])))
        leaf    groups
        kernel       4
    """
    widths = [
        max(len(cell) for row, cell in enumerate(column) if (row, place) != spill)
        for place, column in enumerate(zip(*rows, strict=True))
    ]
    lines = []
    for number, row in enumerate(rows):
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            if (number, place - 1) == spill:
                continue
            if (number, place) == spill:
                width += 2 + widths[place + 1]
            cells.append(cell.rjust(width) if place in right else cell.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return lines
