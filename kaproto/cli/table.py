"""
Tables for terminals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kaproto.records.who import clean

__all__ = ["table"]


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """
    @param rows: lists of values, one for each heading; C{None} is shown as a dash.
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
