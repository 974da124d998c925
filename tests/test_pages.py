"""
Tests that what the pages show is true: code is that of the examples, which are tested; files are
those that are shipped; commands have the flags that are named; links lead somewhere.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple
from unittest.mock import patch

from twisted.python.usage import Options as BaseOptions
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.options import Options as ServerFlags
from kaproto.cli.main import Options as CommandFlags

PROJECT = Path(__file__).resolve().parent.parent
DOCS = PROJECT / "docs"
with patch.object(sys, "path", [str(DOCS), *sys.path]):
    import generate
    import manuals
    import sequence

_RST = re.compile(r"^( *)\.\. code-block:: (\w+)\n((?:\1 +.*\n|\n)+)", re.MULTILINE)
_MARKDOWN = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

PROGRAMS = {"python", "toml", "ini"}
"""
Blocks in these languages are parts of files.
"""


class Block(NamedTuple):
    """
    A block of code in a page.
    """

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(PROJECT)}: {self.text.splitlines()[0]}"


def pages() -> list[Path]:
    """
    @return: everything there is to read: the files in the project's folder and in C{docs}.
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
            yield Block(page, language, block.strip("\n"))
    else:
        for _indentation, language, block in _RST.findall(text):
            yield Block(page, language, dedent(block).strip("\n"))


def blocks() -> list[Block]:
    """
    @return: those of all pages.
    """
    return [each for page in pages() for each in blocksIn(page, page.read_text("utf-8"))]


def shows(source: str, block: str) -> bool:
    """
    @return: whether the lines of the block stand in the source, in a row, at any indentation.
    """
    lines = source.splitlines()
    wanted = block.splitlines()
    for start in range(len(lines) - len(wanted) + 1):
        part = dedent("\n".join(lines[start : start + len(wanted)]))
        if part == block:
            return True
    return False


def commandsIn(block: Block) -> Iterator[list[str]]:
    """
    @return: the commands that a block tells people to type, each in words.
    """
    for line in block.text.replace("\\\n", " ").splitlines():
        prompt, _, typed = line.partition(" ")
        if block.language == "console" and prompt in {"$", "#"}:
            text = typed
        elif block.language == "sh":
            text = line
        else:
            continue
        for command in re.split(r" && | \| ", text):
            yield shlex.split(command, comments=True)


@cache
def flagsOf(options: type[BaseOptions]) -> set[str]:
    """
    @return: the names of the flags that a program takes, without C{=}.
    """
    made = options()
    return {name.rstrip("=") for name in made.longOpt}


def unknownFlags(words: list[str]) -> list[str]:
    """
    @return: the flags in a command that its program does not have.  Only those of kaproto's own
        programs are known.
    """
    program = words[0].rpartition("/")[2] if words else ""
    if words[1:3] == ["-m", "kaproto"]:
        program, words = "kaproto", words[2:]
    if program in {"twistd", "twist"} and "kaserver" in words:
        place = words.index("kaserver")
        before, after = words[1:place], words[place + 1 :]
        own = flagsOf(ServerOptions) | {"log-format"}
        return _unknown(before, own) + _unknown(after, flagsOf(ServerFlags))
    if program == "kaproto":
        known = flagsOf(CommandFlags)
        subCommands: Any = CommandFlags.subCommands
        known = known.union(*(flagsOf(each) for name, _, each, _ in subCommands if name in words))
        return _unknown(words[1:], known)
    return []


def _unknown(words: list[str], known: set[str]) -> list[str]:
    named = [word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")]
    return [name for name in named if name not in known]


def linksIn(page: Path, text: str) -> Iterator[str]:
    """
    @return: where the links of a page lead that are not to other sites.
    """
    if page.suffix == ".md":
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        found = re.findall(r"\]\(([^)]+)\)", text)
    else:
        found = re.findall(r":download:`[^<`]*<([^>]+)>`", text)
        found += re.findall(r"(?<!:)`[^`<]+ <([^>`]+)>`_", text)
        found += re.findall(r"^ *\.\. (?:image|figure):: (\S+)", text, re.MULTILINE)
        named = re.findall(r":doc:`(?:[^<`]*<)?([^>`]+)>?`", text)
        found += [f"{name}.*" for name in named]
    for each in found:
        if not re.match(r"(https?|mailto):", each):
            yield each.partition("#")[0]


class PagesTests(SynchronousTestCase):
    """
    What the pages show.
    """

    def test_code(self) -> None:
        """
        Every block of Python, TOML and INI is a part of a file that is tested or shipped.
        """
        sources = [
            path.read_text("utf-8")
            for folder in ("examples", "systemd")
            for path in (DOCS / folder).rglob("*")
            if path.suffix in {".py", ".toml", ".cnf", ".conf", ".service", ".socket"}
        ]
        found = [each for each in blocks() if each.language in PROGRAMS]
        self.assertGreater(len(found), 30)
        missing = [
            str(each) for each in found if not any(shows(source, each.text) for source in sources)
        ]
        self.assertEqual(missing, [])

    def test_inPlace(self) -> None:
        """
        Code stands in the pages themselves, for those who read them in the repository.
        """
        for page in pages():
            self.assertNotIn("literalinclude::", page.read_text("utf-8"), page)

    def test_commands(self) -> None:
        """
        The flags of kaserver and kaproto in commands exist.
        """
        commands = [words for each in blocks() for words in commandsIn(each)]
        self.assertGreater(sum("kaserver" in words for words in commands), 10)
        wrong = [(words, unknownFlags(words)) for words in commands if unknownFlags(words)]
        self.assertEqual(wrong, [])

    def test_links(self) -> None:
        """
        Links to other files lead to files.
        """
        count = 0
        for page in pages():
            for link in linksIn(page, page.read_text("utf-8")):
                if link:
                    count += 1
                    folder = DOCS if link.startswith("/") else page.parent
                    there = [*folder.glob(link.lstrip("/").removesuffix("/"))] or [
                        *(folder / Path(link).parent).glob(Path(link).name)
                    ]
                    self.assertNotEqual(there, [], f"{page.relative_to(PROJECT)}: {link}")
        self.assertGreater(count, 40)

    def test_listed(self) -> None:
        """
        The index links to every page, also where Sphinx does not run.
        """
        links = set(linksIn(DOCS / "index.rst", (DOCS / "index.rst").read_text("utf-8")))
        for page in DOCS.rglob("*.*"):
            if page.suffix in {".rst", ".md"} and "_build" not in page.parts:
                name = str(page.relative_to(DOCS))
                if name not in {"index.rst", "api/index.rst", "package.md"}:
                    self.assertIn(name, links)

    def test_written(self) -> None:
        """
        What docs/generate.py writes into pages is what it would write now.
        """
        found = 0
        for page in generate.PAGES:
            text = page.read_text("utf-8")
            found += text.count(".. docs/generate.py writes: ")
            self.assertEqual(text, generate.written(text), "run docs/generate.py")
        self.assertEqual(found, len(generate.BLOCKS))

    def test_manuals(self) -> None:
        """
        The manual pages are what docs/manuals.py writes.
        """
        for path, make in manuals.MANUALS.items():
            self.assertEqual(path.read_text("utf-8"), make(), "run docs/manuals.py")

    def test_pictures(self) -> None:
        """
        The pictures are what docs/sequence.py draws.
        """
        for path, picture in sequence.PICTURES.items():
            self.assertEqual(
                path.read_text("utf-8"), sequence.draw(picture), "run docs/sequence.py"
            )


class ReaderTests(SynchronousTestCase):
    """
    The readers of pages above find what there is.
    """

    def test_blocks(self) -> None:
        """
        Blocks are found whole, whatever their indentation, and compared line by line.
        """
        page = "x\n\n.. code-block:: python\n\n   if a:\n\n       b\n\ny\n"
        (block,) = blocksIn(Path("a.rst"), page)
        self.assertEqual((block.language, block.text), ("python", "if a:\n\n    b"))
        (block,) = blocksIn(Path("a.md"), "x\n```toml\na = 1\n```\n")
        self.assertEqual((block.language, block.text), ("toml", "a = 1"))
        self.assertTrue(shows("def f():\n    if a:\n\n        b\n    c\n", "if a:\n\n    b"))
        self.assertFalse(shows("if a:\n    b\n", "if a:\n\n    b"))
        self.assertFalse(shows("", "a"))

    def test_flags(self) -> None:
        """
        Flags that are not there are found, before and after C{kaserver}, and in C{kaproto}.
        """
        block = Block(Path("a.md"), "sh", "x && .venv/bin/twistd -n --no kaserver --modes=2 -m2")
        _x, words = commandsIn(block)
        self.assertEqual(unknownFlags(words), ["no", "modes"])
        self.assertEqual(unknownFlags(["kaproto", "ping", "--count=1", "--counts"]), ["counts"])
        self.assertEqual(unknownFlags(["ls", "--counts"]), [])

    def test_links(self) -> None:
        """
        Links to files are found, in both kinds of page.
        """
        text = "[a](b.md) [c](https://d) ```\n[e](f)\n```"
        self.assertEqual(list(linksIn(Path("a.md"), text)), ["b.md"])
        text = "`a <b.rst#c>`_ :doc:`d` :doc:`e <f>` :download:`g <h>`\n.. image:: i.svg\n"
        self.assertEqual(
            sorted(linksIn(Path("a.rst"), text)), ["b.rst", "d.*", "f.*", "h", "i.svg"]
        )
