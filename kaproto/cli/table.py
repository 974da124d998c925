"""
Tables for terminals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kaproto.records.who import clean

__all__ = ["elapsed", "table"]


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """
    @param rows: as many values each as there are headings; C{None} is shown as a dash.
    @return: lines, of printable characters only.
    """
    shown = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *shown, strict=True)]
    for row in [headings, *shown]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield line.rstrip()


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(str(value))


_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def elapsed(seconds: float) -> str:
    """
    @return: a time in its two largest units, such as C{5d3h} or C{12s}.
    """
    rest = int(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        number, rest = divmod(rest, size)
        if number or parts or unit == "s":
            parts.append(f"{number}{unit}")
    return "".join(parts[:2])
