"""
The text of C{twistd kaserver --help}: the settings in groups.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from kaproto.app.kinds import Flag
from kaproto.app.settings import GROUPS, Setting

__all__ = ["describe"]

_COLUMN: Final = 30

_HELP: Final = {
    "help": "Print this and exit.",
    "help-policies": "Describe the policies that --mode can choose, and exit.",
    "help-auth": "List the kinds of --auth, and exit.",
    "help-auth-type=": "Describe one of them, and exit.",
    "version": "Print kaproto's version and exit.",
}


def describe(introduction: str, width: int) -> str:
    """
    @param introduction: the text before the settings.
    @param width: the number of characters in a line.
    """
    lines = ["", *textwrap.wrap(introduction, width)]
    for heading, settings in GROUPS.items():
        lines += ["", f"{heading}:"]
        for setting in settings:
            lines += _entry(_flag(setting), _text(setting), width)
    lines += ["", "Help:"]
    for name, text in _HELP.items():
        lines += _entry(f"    --{name}", text, width)
    return "\n".join(lines) + "\n"


def _flag(setting: Setting) -> str:
    short = "   " if setting.short is None else f"-{setting.short},"
    return f"{short} --{setting.name}{'' if isinstance(setting.kind, Flag) else '='}"


def _text(setting: Setting) -> str:
    if setting.default is None or isinstance(setting.kind, Flag):
        return setting.help
    shown = f"{setting.default:g}" if isinstance(setting.default, float) else setting.default
    return f"{setting.help} [default: {shown}]"


def _entry(flag: str, text: str, width: int) -> Iterator[str]:
    first, *others = textwrap.wrap(text, width - _COLUMN, break_on_hyphens=False)
    begin = f"  {flag}  "
    if len(begin) > _COLUMN:
        yield begin.rstrip()
        begin = ""
    yield begin.ljust(_COLUMN) + first
    for line in others:
        yield " " * _COLUMN + line
