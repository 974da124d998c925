"""
Writes the manual pages from the output of C{--help}.  Run this file to update them; a test fails
when they are out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from kaproto.app.options import Options as ServerOptions
from kaproto.cli.main import FLEET_COMMANDS
from kaproto.cli.main import Options as CommandOptions

__all__ = ["MANUALS"]

_FOLDER: Final = Path(__file__).resolve().parent / "man"
_WIDTH: Final = 72


def _server() -> str:
    return _page(
        ("KASERVER", "8", "negotiated keepalive for libvirt's RPC"),
        ("twistd [-n] [--pidfile=FILE] kaserver [options]", "twist kaserver [options]"),
        {"OPTIONS": _usage(ServerOptions)},
        ("kaproto(1)", "virsh(1)", "virt-admin(1)", "libvirtd(8)"),
    )


def _command() -> str:
    sections = {"COMMANDS": _usage(CommandOptions)}
    subCommands: Any = CommandOptions.subCommands
    for name, _shortcut, options, description in subCommands:
        sections[f"kaproto {name}"] = f"{description}\n\n{_usage(options)}"
    for name, _shortcut, options, description in FLEET_COMMANDS:
        sections[f"kaproto --registry=URL {name}"] = f"{description}\n\n{_usage(options)}"
    return _page(
        ("KAPROTO", "1", "watch and administer kaserver, ping libvirt hosts"),
        ("kaproto [--socket=PATH] COMMAND [options]", "kaproto --registry=URL COMMAND [options]"),
        sections,
        ("kaserver(8)", "virt-admin(1)"),
    )


MANUALS: Final[Mapping[Path, Callable[[], str]]] = {
    _FOLDER / "kaserver.8": _server,
    _FOLDER / "kaproto.1": _command,
}
"""
The functions that write the pages, by file.
"""


def _usage(options: type[Any]) -> str:
    made = options()
    # Without a longdesc, Twisted shows the docstring of the running program.
    made.longdesc = getattr(options, "longdesc", "")
    return str(made.getUsage(width=_WIDTH)).strip("\n")


def _page(
    title: tuple[str, str, str],
    synopsis: tuple[str, ...],
    sections: Mapping[str, str],
    others: tuple[str, ...],
) -> str:
    name, number, purpose = title
    lines = [
        f'.TH {name} {number} "" kaproto',
        ".SH NAME",
        f"{name.lower()} \\- {_escape(purpose)}",
        ".SH SYNOPSIS",
        *(f"{_escape(line)}\n.br" for line in synopsis),
    ]
    for heading, text in sections.items():
        lines += [f".SH {_escape(heading)}", ".nf", _escape(text), ".fi"]
    return "\n".join([*lines, ".SH SEE ALSO", _escape(", ".join(others)), ""])


def _escape(text: str) -> str:
    """
    @return: the text in roff: backslashes and hyphens are escaped, and no line is a request.
    """
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


if __name__ == "__main__":
    for _path, _make in MANUALS.items():
        _path.parent.mkdir(exist_ok=True)
        _path.write_text(_make(), "utf-8")
