"""
Generates parts of the documentation from the code.  Run this file to update the pages; a test fails
when they are out of date.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import indent
from typing import Final

from twisted.python.reflect import namedAny

from drawing import draw
from kaproto.app.options import Options
from kaproto.policies.plugins import describePolicies
from kaproto.rpc.negotiation import TRANSITIONS

__all__ = ["BLOCKS", "ELSEWHERE", "PAGES", "drawHandshake", "writeInventories", "written"]

ROOT: Final = Path(__file__).resolve().parent.parent

ELSEWHERE: Final = {
    "python": "https://docs.python.org/3/",
    "twisted": "https://docs.twisted.org/en/stable/api/",
}
"""
The URLs of other projects' documentation, by the names of their inventories.
"""

_MENTION: Final = re.compile(r"[{`<](twisted\.[\w.]+)[}`>]")


def writeInventories(folder: Path) -> None:
    """
    Write the lists of link targets in the documentation of Python and Twisted.

    @param folder: the folder for the lists, which is created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "python.inv").write_bytes(_inventory("python", _builtins()))
    (folder / "twisted.inv").write_bytes(_inventory("twisted", _twisted()))


def drawHandshake() -> str:
    """
    Draw the phases of a connection.
    """
    return draw(
        {
            phase.value: {event.value: after.value for event, after in events.items()}
            for phase, events in TRANSITIONS.items()
        }
    )


def _help() -> str:
    return f"twistd kaserver [options]\n{Options().getUsage(width=79).lstrip(chr(10))}"


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "help": _help,
    "policies": describePolicies,
    "handshake": drawHandshake,
}
"""
The functions that generate the blocks, by the name in the comment before each block.
"""

PAGES: Final = (
    ROOT / "docs" / "reference" / "commandline.rst",
    ROOT / "docs" / "explanation" / "architecture.rst",
)
"""
The pages with generated blocks.
"""

_BLOCK: Final = re.compile(
    r"^(\.\. docs/generate\.py writes: (\w+)\n\n\.\. code-block:: none\n)(?:   .*\n|\n)*",
    re.MULTILINE,
)


def written(page: str) -> str:
    """
    @param page: a page's text.
    @return: the text with its generated blocks up to date.
    """

    def block(match: re.Match[str]) -> str:
        lines = BLOCKS[match[2]]().strip("\n")
        return f"{match[1]}\n{indent(lines, '   ')}\n\n"

    return _BLOCK.sub(block, page)


def _builtins() -> Iterator[tuple[str, str, str]]:
    for name, value in vars(builtins).items():
        if isinstance(value, type) and issubclass(value, BaseException):
            yield name, "exception", f"library/exceptions.html#{name}"


def _twisted() -> Iterator[tuple[str, str, str]]:
    """
    List the link targets in Twisted's documentation.  Names that Twisted does not have are left
    out, so that Sphinx reports links to them as broken.
    """
    for name in sorted(_mentioned()):
        try:
            value = namedAny(name)
        except (AttributeError, ImportError):
            continue
        owner, _, last = name.rpartition(".")
        if inspect.ismodule(value) or inspect.isclass(value) or hasattr(value, "providedBy"):
            yield name, "module" if inspect.ismodule(value) else "class", f"{name}.html"
        else:
            kind = "method" if inspect.isclass(namedAny(owner)) else "function"
            yield name, kind, f"{owner}.html#{last}"


def _mentioned() -> set[str]:
    """
    @return: the names of Twisted that the code imports, or that docstrings or pages mention.
    """
    names = set()
    for path in [*ROOT.glob("kaproto/**/*.py"), *ROOT.glob("docs/**/*.rst")]:
        text = path.read_text()
        names.update(_MENTION.findall(text))
        for node in ast.walk(ast.parse(text)) if path.suffix == ".py" else ():
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("twisted."):
                names.update(f"{node.module}.{each.name}" for each in node.names)
    return names


def _inventory(project: str, entries: Iterator[tuple[str, str, str]]) -> bytes:
    """
    @return: a list of link targets in Sphinx's format, version 2.
    """
    header = (
        "# Sphinx inventory version 2\n"
        f"# Project: {project}\n"
        "# Version: \n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    lines = [f"{name} py:{kind} 1 {uri} -\n" for name, kind, uri in entries]
    return header.encode() + zlib.compress("".join(lines).encode())


if __name__ == "__main__":
    for _page in PAGES:
        _page.write_text(written(_page.read_text("utf-8")), "utf-8")
