"""Tables as text."""

from collections.abc import Collection, Sequence


def text_table(
    rows: Sequence[Sequence[str]], right: Collection[int] = (), spill: tuple[int, int] | None = None
) -> list[str]:
    """The lines of a table whose columns are as wide as their widest cell, two spaces apart.

    Args:
        rows: of cells, all of one length; the first is usually the header.
        right: numbers of the columns whose cells stand at the right; all others stand at the left.
        spill: (row, column) of a cell that may run into the one after it, which is empty.

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
