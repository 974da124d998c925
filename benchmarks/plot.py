"""
Plots cost against number of clients, as SVG.
"""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

__all__ = ["plot"]

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 50, 60
LABEL_GAP = 16
COLOURS = (
    "#000000",
    "#d1495b",
    "#00798c",
    "#edae49",
    "#3d5a80",
    "#66a182",
    "#8d5a97",
    "#7f7f7f",
    "#b5651d",
    "#2e86ab",
)


def plot(title: str, vertical: str, lines: dict[str, list[tuple[int, float]]]) -> str:
    """
    Draw lines on logarithmic axes, each named at its right end.

    @param title: the title of the plot.
    @param vertical: the name of the vertical axis.
    @param lines: (number of clients, figure) for each server.
    @return: the SVG document.
    """
    points = [point for line in lines.values() for point in line]
    low, high = _decades([y for _, y in points])
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    last = max(last, first + 1)

    def across(x: float) -> float:
        part = math.log(x / first) / math.log(last / first)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        part = math.log(y / low) / math.log(high / low)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    right = WIDTH - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 28, title, 'font-size="16" font-weight="bold"'),
        _text((LEFT + right) / 2, HEIGHT - 14, "clients", 'text-anchor="middle"'),
        _text(
            0,
            0,
            vertical,
            f'text-anchor="middle" transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) '
            'rotate(-90)"',
        ),
    ]
    for y in _ticks(low, high):
        parts.append(_line(LEFT, up(y), right, up(y), "#dddddd"))
        parts.append(_text(LEFT - 8, up(y) + 4, f"{y:g}", 'text-anchor="end"'))
    for x in sorted({x for x, _ in points}):
        parts.append(_line(across(x), TOP, across(x), HEIGHT - BOTTOM, "#dddddd"))
        parts.append(_text(across(x), HEIGHT - BOTTOM + 20, f"{x:,}", 'text-anchor="middle"'))
    ends = _apart({name: up(max(line)[1]) for name, line in lines.items() if line})
    for number, (name, line) in enumerate(lines.items()):
        if not line:
            continue
        colour = COLOURS[number % len(COLOURS)]
        places = [(across(x), up(y)) for x, y in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        parts.append(_line(*places[-1], right + 8, ends[name], colour, 'stroke-dasharray="2 3"'))
        parts.append(_text(right + 12, ends[name] + 4, name, f'fill="{colour}"'))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _decades(values: list[float]) -> tuple[float, float]:
    """
    @return: the ends of an axis around the values, each 1, 2 or 5 times a power of ten.
    """
    ticks = [factor * 10.0**power for power in range(-6, 9) for factor in (1, 2, 5)]
    low = max(tick for tick in ticks if tick <= min(values))
    high = min(tick for tick in ticks if tick > max(values))
    return low, high


def _ticks(low: float, high: float) -> list[float]:
    """
    @return: the marks of an axis.
    """
    ticks = [factor * 10.0**power for power in range(-6, 9) for factor in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick <= high]


def _apart(wanted: dict[str, float]) -> dict[str, float]:
    """
    Move labels apart, so that none covers another.
    """
    placed: dict[str, float] = {}
    lowest = -math.inf
    for name, y in sorted(wanted.items(), key=lambda item: item[1]):
        lowest = max(y, lowest + LABEL_GAP)
        placed[name] = lowest
    return placed


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, attributes: str = "") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f"{attributes}/>"
    )
