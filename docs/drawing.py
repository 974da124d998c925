"""
Draws a state machine, given as a table, in plain characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["draw"]

_GAP: Final = 4


def draw(table: Mapping[str, Mapping[str, str]]) -> str:
    """
    Draw the states one below the other.  A transition to the next state goes straight down.  All
    others leave to the right, where each target state has a vertical lane.

    @param table: for each state, the next state after each event.
    @return: the lines.
    """
    states = list(table)
    below = dict(zip(states, [*states[1:], ""], strict=True))
    lanes: dict[str, dict[int, int]] = {
        after: {} for state in states for after in table[state].values() if after != below[state]
    }
    width = max(map(len, states)) + 4
    border = f"+{'-' * width}+"
    canvas = _Canvas()
    row = 0
    for state in states:
        labels = {after: _label(table[state], after) for after in table[state].values()}
        down = labels.pop(below[state], "")
        sides = [(state, "<")] if state in lanes else []
        sides += [(after, f"-- {label} ") for after, label in labels.items()]
        canvas.write(row, 0, border)
        for number, (target, side) in enumerate(sides or [("", "")]):
            row += 1
            canvas.write(row, 0, f"|{'' if number else state:^{width}}|{side}")
            if target:
                lanes[target][row] = len(border) + len(side)
        canvas.write(row + 1, 0, border)
        if down:
            for number, text in enumerate(("|", f"| {down}", "v"), 2):
                canvas.write(row + number, width // 2, text)
        row += 5
    for starts in sorted(lanes.values(), key=lambda starts: max(starts) - min(starts)):
        canvas.drawLane(starts)
    return str(canvas)


def _label(events: Mapping[str, str], after: str) -> str:
    return ", ".join(event for event, target in events.items() if target == after)


class _Canvas:
    """
    Characters by row and column.
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], str] = {}

    def write(self, row: int, column: int, text: str) -> None:
        """
        Write text over the characters at its place.
        """
        for offset, character in enumerate(text):
            self._cells[row, column + offset] = character

    def drawLane(self, starts: Mapping[int, int]) -> None:
        """
        Draw a vertical lane to the right of everything, and the horizontal lines that join it.

        @param starts: the columns where the horizontal lines start, by row.
        """
        lane = max(column for _, column in self._cells) + _GAP
        for row in range(min(starts), max(starts) + 1):
            self._cells[row, lane] = "+" if row in starts else "|"
            for column in range(starts.get(row, lane), lane):
                self._cells.setdefault((row, column), "-")

    def __str__(self) -> str:
        lines = [""] * (1 + max(row for row, _ in self._cells))
        for (row, column), character in sorted(self._cells.items()):
            lines[row] = lines[row].ljust(column) + character
        return "\n".join(lines) + "\n"
