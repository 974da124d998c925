"""
kaproto's layers and public modules.  A layer is called a floor, a top-level module or package a
room, and a public module, which applications import, a door.  Modules import from their own floor
and lower ones, without cycles.

C{tests/test_layers.py} checks the imports.  Run this file to rewrite the tables in
C{explanation/architecture.rst} and C{reference/publicmodules.rst}.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

__all__ = [
    "DOORS",
    "FLOORS",
    "TABLES",
    "doorsTable",
    "floorOf",
    "floorsTable",
    "main",
    "moduleFiles",
    "roomOf",
    "tableIn",
]

FLOORS: Final = (
    {
        "kaproto",
        "kaproto.arguments",
        "kaproto.endpointstring",
        "kaproto.errors",
        "kaproto.limits",
        "kaproto.regularfile",
        "kaproto.uri",
        "kaproto.waiting",
    },
    {"kaproto.peer", "kaproto.wire"},
    {"kaproto.directreader", "kaproto.logbounds", "kaproto.transport"},
    {"kaproto.keepalive", "kaproto.security"},
    {"kaproto.counters", "kaproto.interfaces"},
    {"kaproto.records"},
    {"kaproto.policies", "kaproto.program"},
    {"kaproto.rpc"},
    {"kaproto.client", "kaproto.server", "kaproto.watch"},
    {"kaproto.endpointplugins"},
    {"kaproto.backends", "kaproto.memorytransport", "kaproto.registry", "kaproto.testing"},
    {"kaproto.status"},
    {"kaproto.admin"},
    {"kaproto.app", "kaproto.workers"},
    {"kaproto.__main__", "kaproto.cli"},
)
"""
The floors from the ground up, each with its rooms.
"""

DOORS: Final = {
    "kaproto",
    "kaproto.client",
    "kaproto.errors",
    "kaproto.interfaces",
    "kaproto.keepalive",
    "kaproto.limits",
    "kaproto.policies",
    "kaproto.program",
    "kaproto.server",
    "kaproto.testing",
    "kaproto.watch",
    "kaproto.watch.websocket",
}
"""
The modules that applications import.  Names that none of them lists in C{__all__} may move without
notice.
"""

ROOT: Final = Path(__file__).resolve().parent.parent
_BEGIN: Final = ".. The table is written by docs/floors.py.\n"
_END: Final = "\n.. End of the table.\n"


def moduleFiles() -> dict[str, Path]:
    """
    @return: the files of kaproto's modules, by their names.
    """
    files = {}
    for path in sorted((ROOT / "kaproto").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def roomOf(module: str) -> str:
    """
    @return: the name of a module's room.
    """
    return ".".join(module.split(".")[:2])


def floorOf(module: str) -> int:
    """
    @return: the number of a module's floor, 0 for the ground.
    @raise LookupError: when the module's room is on no floor.
    """
    for number, floor in enumerate(FLOORS):
        if roomOf(module) in floor:
            return number
    raise LookupError(f"{roomOf(module)} is on no floor of docs/floors.py")


def floorsTable() -> Iterator[str]:
    """
    @return: the lines of a table of the floors in reStructuredText, the highest first: each room,
        the first paragraph of its docstring, and its modules.
    """
    files = moduleFiles()
    yield ".. list-table::\n   :header-rows: 1\n   :widths: 8 22 70\n"
    yield "\n   * - layer\n     - package or module\n     - what it is, and its modules\n"
    for number in reversed(range(len(FLOORS))):
        for room in sorted(FLOORS[number]):
            modules = [each.removeprefix(f"{room}.") for each in files if roomOf(each) == room]
            inside = ", ".join(f"``{each}``" for each in modules if each != room)
            door = " (public)" if room in DOORS else ""
            yield f"   * - {number}\n     - `{room}`{door}\n     - {_sentence(files[room])}\n"
            if inside:
                yield f"\n       {inside}\n"


def doorsTable() -> Iterator[str]:
    """
    @return: the lines of a table of the doors, with the first paragraph of each docstring.
    """
    files = moduleFiles()
    yield ".. list-table::\n   :widths: 30 70\n\n"
    for door in sorted(DOORS):
        yield f"   * - `{door}`\n     - {_sentence(files[door])}\n"


TABLES: Final[Mapping[Path, Callable[[], Iterator[str]]]] = {
    ROOT / "docs" / "explanation" / "architecture.rst": floorsTable,
    ROOT / "docs" / "reference" / "publicmodules.rst": doorsTable,
}
"""
The pages with a table, and the function that makes the table of each.
"""


def _sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.sub(r"[CL]{([^}]*)}", r"``\1``", paragraph)


def tableIn(page: str) -> str:
    """
    @return: the table in a page's text.
    """
    return page.partition(_BEGIN + "\n")[2].partition(_END)[0]


def main() -> None:
    """
    Rewrite the tables in the pages.
    """
    for path, table in TABLES.items():
        before, begin, rest = path.read_text("utf-8").partition(_BEGIN + "\n")
        _old, end, after = rest.partition(_END)
        path.write_text(before + begin + "".join(table()) + end + after, "utf-8")


if __name__ == "__main__":
    main()
