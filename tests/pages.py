"""
Reads the documentation's pages: their blocks of code, and the commands to type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

__all__ = ["DOCS", "PROJECT", "Block", "Typed", "blocks", "blocksIn", "pages", "sameShape", "typed"]

PROJECT = Path(__file__).resolve().parent.parent
DOCS = PROJECT / "docs"

_RST = re.compile(
    r"^( *)(?:\.\. code-block:: (\w+)(?:\n +:\w+:.*)*|(?!\.\.)(?:.*\S)?::)\n((?:\1 +.*\n|\n)+)",
    re.MULTILINE,
)
_MARKDOWN = re.compile(r"^```([\w{}]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """
    A block of code in a page.

    @ivar language: empty if the page does not give it.
    """

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(PROJECT)}: {self.text.splitlines()[0]}"


class Typed(NamedTuple):
    """
    A command in a console block, and the output shown below it.
    """

    command: str
    output: str


def pages() -> list[Path]:
    """
    @return: all pages: the files in the project's folder, in C{docs} and in C{benchmarks}.
    """
    found = [*PROJECT.glob("*.md"), *(PROJECT / "benchmarks").glob("*.md")]
    found += [*DOCS.rglob("*.rst"), *DOCS.rglob("*.md")]
    return sorted(page for page in found if "_build" not in page.parts)


def blocksIn(page: Path, text: str) -> Iterator[Block]:
    """
    @return: the blocks of code in a page, without their indentation.
    """
    if page.suffix == ".md":
        for language, block in _MARKDOWN.findall(text):
            if not language.startswith("{"):  # a Sphinx directive
                yield Block(page, language, block.strip("\n"))
    else:
        for _indentation, language, block in _RST.findall(text):
            yield Block(page, language, dedent(block).strip("\n"))


def blocks() -> list[Block]:
    """
    @return: the blocks of code in all pages.
    """
    return [each for page in pages() for each in blocksIn(page, page.read_text("utf-8"))]


def typed(block: Block) -> Iterator[Typed]:
    """
    @return: the commands in a block, in order.
    """
    if block.language == "sh":
        for line in block.text.replace("\\\n", " ").splitlines():
            yield Typed(line.partition(" #")[0].strip(), "")
    elif block.language == "console":
        for part in re.split(r"^[$#] ", block.text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
            command, _newline, output = part.partition("\n")
            yield Typed(command, output.rstrip())


def sameShape(shown: str, real: str) -> bool:
    """
    @return: whether a real output matches the one shown, where numbers and white space may differ,
        and three dots stand for any text.
    """
    pattern = ".*".join(map(re.escape, _shape(shown).split("...")))
    return re.fullmatch(pattern, _shape(real), re.DOTALL) is not None


def _shape(text: str) -> str:
    return " ".join(re.sub(r"\d+(\.\d+)*", "0", text).split())
