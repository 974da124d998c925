"""
Draws the README's pictures as SVGs: a client that is pinged and dropped, and a client that is
refused.  The pictures are shown side by side, or one below the other on a narrow page.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal
from xml.sax.saxutils import escape

import attrs

__all__ = ["PICTURES", "draw"]

_FOLDER: Final = Path(__file__).resolve().parent / "pictures"

Kind = Literal["right", "left", "lost", "note", "end", "gone"]

_ALICE: Final[tuple[tuple[Kind, str], ...]] = (
    ("right", "do you have keepalive?"),
    ("left", "yes"),
    ("right", "open qemu:///system"),
    ("left", "opened"),
    ("note", "silence: 5 s"),
    ("left", "ping"),
    ("right", "pong"),
    ("gone", "the host dies"),
    ("note", "silence: 5 s"),
    ("lost", "ping, five times"),
    ("end", "dropped 30 s after its last byte"),
)
_BOB: Final[tuple[tuple[Kind, str], ...]] = (
    ("right", "open qemu:///system"),
    ("left", "error: this server requires keepalive"),
    ("end", "disconnected, and told what to do"),
)

_ROW: Final = 34
_TOP: Final = 96
_WIDTH: Final = 370
_LEFT: Final = 45
_RIGHT: Final = 325
_RED: Final = "#b3261e"
_BLUE: Final = "#1f5fbf"
_GREY: Final = "#5c6370"


@attrs.frozen
class Picture:
    """
    The contents of a picture.

    @ivar title: its title.
    @ivar client: the name of the client.
    @ivar steps: the events, from top to bottom.
    """

    title: str
    client: str
    steps: tuple[tuple[Kind, str], ...]


PICTURES: Final[Mapping[Path, Picture]] = {
    _FOLDER / "dropped.svg": Picture("A client that asks", "alice", _ALICE),
    _FOLDER / "refused.svg": Picture("A client that does not, in mode 2", "bob", _BOB),
}
"""
The pictures, by file.
"""


def draw(picture: Picture) -> str:
    """
    @return: the SVG.
    """
    bottom = _TOP + _ROW * len(picture.steps)
    gone = [number for number, (kind, _label) in enumerate(picture.steps) if kind == "gone"]
    alive = _TOP + _ROW * gone[0] - 6 if gone else bottom
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{bottom}"'
        ' font-family="Helvetica, Arial, sans-serif" font-size="14">',
        '<rect width="100%" height="100%" rx="8" fill="#ffffff"/>',
        _text(_WIDTH // 2, 30, picture.title, "#111111", "bold"),
        _text(_LEFT, 62, picture.client),
        _text(_RIGHT, 62, "kaserver"),
        _line(_LEFT, 72, _LEFT, alive, _GREY),
        _line(_RIGHT, 72, _RIGHT, bottom, _GREY),
    ]
    for number, (kind, label) in enumerate(picture.steps):
        lines += _step(_TOP + _ROW * number, kind, label)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _step(y: int, kind: Kind, label: str) -> list[str]:
    middle = (_LEFT + _RIGHT) // 2
    match kind:
        case "right":
            return [_text(middle, y - 5, label), *_arrow(_LEFT, _RIGHT, y, _BLUE)]
        case "left":
            return [_text(middle, y - 5, label), *_arrow(_RIGHT, _LEFT, y, _BLUE)]
        case "lost":
            return [
                _text(middle, y - 5, label),
                *_arrow(_RIGHT, _LEFT + 40, y, _RED, "5 4"),
                *_cross(_LEFT + 28, y),
            ]
        case "gone":
            return [_text(_LEFT + 14, y + 5, label, _RED, anchor="start"), *_cross(_LEFT, y)]
        case "note":
            return [_text(middle, y, label, _GREY, style="italic")]
        case "end":
            return [_text(_RIGHT - 14, y + 5, label, _RED, anchor="end"), *_cross(_RIGHT, y)]


def _text(
    x: int,
    y: int,
    text: str,
    colour: str = "#111111",
    weight: str = "normal",
    *,
    anchor: str = "middle",
    style: str = "normal",
) -> str:
    return (
        f'<text x="{x}" y="{y}" fill="{colour}" font-weight="{weight}" font-style="{style}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )


def _line(x1: int, y1: int, x2: int, y2: int, colour: str, dashes: str = "none") -> str:
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="1.5"'
        f' stroke-dasharray="{dashes}"/>'
    )


def _arrow(start: int, end: int, y: int, colour: str, dashes: str = "none") -> list[str]:
    back = 8 if start > end else -8
    head = f"M{end} {y} l{back} -4 v8 z"
    return [_line(start, y, end, y, colour, dashes), f'<path d="{head}" fill="{colour}"/>']


def _cross(x: int, y: int) -> list[str]:
    return [
        _line(x - 6, y - 6, x + 6, y + 6, _RED),
        _line(x - 6, y + 6, x + 6, y - 6, _RED),
    ]


if __name__ == "__main__":
    for _path, _picture in PICTURES.items():
        _path.write_text(draw(_picture), "utf-8")
