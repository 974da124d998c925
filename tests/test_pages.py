"""
Tests that the documentation is true: code is from the tested examples, files are those that are
shipped, commands have the named flags, and links are not broken.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from grp import getgrgid
from importlib.util import find_spec
from io import StringIO
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.python.reflect import namedAny
from twisted.python.usage import UsageError
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.options import Options as ServerFlags
from kaproto.cli.certificates import makeCertificates
from kaproto.cli.main import Options as CommandFlags
from tests.pages import DOCS, PROJECT, Block, Typed, blocks, blocksIn, pages, sameShape, typed
from tests.told import COMMANDS, OUTPUTS

with patch.object(sys, "path", [str(DOCS), *sys.path]):
    import generate
    import manuals
    import sequence

PROGRAMS = {"python", "toml", "ini"}
"""
Languages of blocks that must be parts of files.
"""


def shows(source: str, block: str) -> bool:
    """
    @return: whether the source contains the block's lines, consecutively, at any indentation.
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
    @return: the commands in a block, each split into words.
    """
    for line, _output in typed(block):
        for command in re.split(r" && | \| ", line):
            yield shlex.split(command, comments=True)


@cache
def twistdFlags() -> set[str]:
    """
    @return: the long flags of twistd and twist.
    """
    options: Any = ServerOptions()
    return {name.rstrip("=") for name in options.longOpt} | {"log-format"}


def mistakeIn(words: list[str]) -> str | None:
    """
    Parse a command of one of kaproto's programs as the program itself would.

    @return: the error, C{None} if the command is valid or another program's.
    """
    program = words[0].rpartition("/")[2] if words else ""
    if words[1:3] == ["-m", "kaproto"]:
        program, words = "kaproto", words[2:]
    try:
        if program in {"twistd", "twist"} and "kaserver" in words:
            place = words.index("kaserver")
            for flag in words[1:place]:
                if flag.startswith("--") and flag[2:].partition("=")[0] not in twistdFlags():
                    return f"twistd has no {flag}"
            _parse(ServerFlags(MemoryReactorClock()), words[place + 1 :])
        elif program == "kaproto":
            _parse(CommandFlags(), words[1:])  # type: ignore[no-untyped-call]
    except UsageError as error:
        return str(error)
    return None


def _parse(options: Any, flags: list[str]) -> None:
    # --check and --help-policies print something and exit.
    with contextlib.redirect_stdout(StringIO()), contextlib.suppress(SystemExit):
        options.parseOptions(flags)


def linksIn(page: Path, text: str) -> Iterator[str]:
    """
    @return: the targets of a page's links: C{FILE}, C{FILE#ANCHOR}, C{#ANCHOR}, C{FILE.*} for any
        suffix, or the address of another site.
    """
    if page.suffix == ".md":
        text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
        yield from re.findall(r"\]\(([^)]+)\)", text)
        yield from re.findall(r'<img src="([^"]+)"', text)
        yield from re.findall(r"<(https?:[^>]+)>", text)
        return
    yield from re.findall(r":download:`[^<`]*<([^>]+)>`", text)
    yield from re.findall(r"(?<!:)`[^`<]+\s<([^>`]+)>`_", text)
    yield from re.findall(r"^ *\.\. (?:image|figure):: (\S+)", text, re.MULTILINE)
    yield from (f"{name}.*" for name in re.findall(r":doc:`(?:[^<`]*<)?([^>`]+)>?`", text))
    yield from (f"#{name}" for name in re.findall(r":ref:`(?:[^<`]*<)?([^>`]+)>?`", text))
    yield from (f"#{slug(name)}" for name in re.findall(r"(?<!:)`([^`<]+)`_(?!_)", text))


def slug(heading: str) -> str:
    """
    @return: GitHub's anchor for a heading, which is nearly the same in docutils.
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchorsIn(page: Path, text: str) -> set[str]:
    """
    @return: the anchors of a page: those of its headings, and its labels.
    """
    if page.suffix == ".md":
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        return {slug(each) for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    underlined = re.findall(r"^(.+)\n([=\-~^])\2{2,}$", text, re.MULTILINE)
    return {slug(each) for each, _line in underlined} | set(
        re.findall(r"^\.\. _([^:]+):$", text, re.MULTILINE)
    )


def broken(page: Path, link: str) -> str | None:
    """
    @return: why a link in a page is broken, C{None} if it is not.  Other sites are not visited.
    """
    if re.match(r"\w+:", link):
        parts = urlsplit(link)
        known = parts.scheme == "https" and re.fullmatch(r"[\w.-]+\.\w+", parts.netloc)
        return None if known or parts.scheme == "mailto" else "is not an address"
    name, _mark, anchor = link.partition("#")
    folder = DOCS if name.startswith("/") else page.parent
    targets = [*folder.glob(name.strip("/"))] if name else [page]
    if not targets:
        return "leads nowhere"
    everywhere = [each for each in pages() if each.suffix == ".rst"] if not name else targets
    if anchor and not any(
        anchor in anchorsIn(each, each.read_text("utf-8")) for each in everywhere
    ):
        return "has an anchor that is nowhere"
    return None


class PagesTests(SynchronousTestCase):
    """
    Tests for the contents of the pages.
    """

    def test_code(self) -> None:
        """
        Every block of Python, TOML and INI is part of a file that is tested or shipped.
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
        Code is in the pages themselves, not included from other files, for those who read them in
        the repository.
        """
        for page in pages():
            self.assertNotIn("literalinclude::", page.read_text("utf-8"), page)

    def test_links(self) -> None:
        """
        Links lead to existing pages, files and anchors; addresses of other sites are well-formed.
        """
        links = [
            (page, link) for page in pages() for link in linksIn(page, page.read_text("utf-8"))
        ]
        self.assertGreater(len(links), 80)
        wrong = [
            f"{page.relative_to(PROJECT)}: {link} {problem}"
            for page, link in links
            if (problem := broken(page, link)) is not None
        ]
        self.assertEqual(wrong, [])

    def test_listed(self) -> None:
        """
        The index links to every page in a way that works without Sphinx too.
        """
        links = set(linksIn(DOCS / "index.rst", (DOCS / "index.rst").read_text("utf-8")))
        for page in DOCS.rglob("*.*"):
            if page.suffix in {".rst", ".md"} and "_build" not in page.parts:
                name = str(page.relative_to(DOCS))
                if name not in {"index.rst", "api/index.rst", "package.md"}:
                    self.assertIn(name, links)

    def test_written(self) -> None:
        """
        The generated blocks in the pages are what docs/generate.py writes.
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


class CommandsTests(SynchronousTestCase):
    """
    Tests for the commands in the pages and their output.
    """

    def test_parsed(self) -> None:
        """
        Every command line in the pages for kaserver and kaproto is valid.
        """
        folder = Path(self.mktemp()).absolute()
        certificates = folder / "trial"
        for _made in makeCertificates(certificates, ["host.example.org"]):
            pass
        config = folder / "kaserver.toml"
        settings = (DOCS / "systemd" / "kaserver.toml").read_text("utf-8")
        users = folder / "users"
        users.write_text("alice:open sesame\n")
        # What this machine lacks, and what to use instead.
        elsewhere = {
            "/etc/kaproto/kaserver.toml": str(config),
            "scram:/etc/kaproto/users": f"file:{users}",
            "libvirttls:16514:pki=trial": "libvirttls:16514",
            "libvirttls:16514": f"libvirttls:16514:pki={certificates}",
            "group=libvirt": f"group={getgrgid(os.getgid()).gr_name}",
            "--mode=rollout:2027-03-01": "--mode=1",
            "$PWD": str(folder),
        }

        def here(text: str) -> str:
            for there, ours in elsewhere.items():
                text = text.replace(there, ours)
            return text

        config.write_text(here(settings))
        commands = [[*map(here, words)] for each in blocks() for words in commandsIn(each)]
        self.assertGreater(sum("kaserver" in words for words in commands), 15)
        wrong = [(words, mistake) for words in commands if (mistake := mistakeIn(words))]
        self.assertEqual(wrong, [])

    def test_everyCommand(self) -> None:
        """
        The pages mention every command of C{kaproto}.
        """
        text = "\n".join(page.read_text("utf-8") for page in pages())
        found = set(re.findall(r"\bkaproto (?:--\S+ )?(\w+)|``(\w+) ID``", text))
        named = {name for names in found for name in names}
        commands: Any = CommandFlags.subCommands
        self.assertEqual({name for name, *_rest in commands} - named, set())

    def test_modules(self) -> None:
        """
        The modules that the pages run with C{python -m} and C{trial} exist.
        """
        commands = [words for each in blocks() for words in commandsIn(each)]
        modules = {
            module
            for words in commands
            for program, module in pairwise(words)
            if program in {"-m", "trial"} and module.startswith(("tests", "kaproto", "benchmarks"))
        }
        self.assertGreater(len(modules), 10)
        self.assertEqual([each for each in modules if find_spec(each) is None], [])

    def test_endpoints(self) -> None:
        """
        The endpoint descriptions in the guide to other protocols are valid.
        """
        text = (DOCS / "howto" / "anyprotocol.rst").read_text("utf-8")
        found = re.findall(r"(?<![\w`])((?:tcp)?keepalive:tcp:\S+)", text)
        self.assertEqual(len(found), 5)
        for each in found:
            make: Any = clientFromString if "host=" in each else serverFromString
            make(MemoryReactorClock(), each)

    def test_told(self) -> None:
        """
        Every command, and every block that is neither code nor commands, is listed in
        L{tests.told}, and nothing else is.
        """
        self.maxDiff = None
        for told, found in [
            (COMMANDS, [(each.page, step.command) for each in blocks() for step in typed(each)]),
            (OUTPUTS, [(each.page, each.text) for each in blocks() if not isCode(each)]),
        ]:
            unused = {(page, start) for page, starts in told.items() for start in starts}
            untold = []
            for path, text in found:
                page = str(path.relative_to(PROJECT))
                starts = [start for start in told.get(page, ()) if text.startswith(start)]
                if not starts:
                    untold.append((page, text))
                unused -= {(page, start) for start in starts[:1]}
            self.assertEqual((untold, sorted(unused)), ([], []))

    def test_tests(self) -> None:
        """
        The tests named in L{tests.told} exist.
        """
        names = {
            name
            for told in (COMMANDS, OUTPUTS)
            for starts in told.values()
            for name in starts.values()
            if name.startswith("tests.")
        }
        self.assertGreater(len(names), 25)
        for name in names:
            self.assertTrue(callable(namedAny(name)), name)


def isCode(block: Block) -> bool:
    """
    @return: whether other tests check a block: it is code, or has commands.
    """
    return block.language in PROGRAMS or any(typed(block))


class ReaderTests(SynchronousTestCase):
    """
    Tests for the functions that read pages.
    """

    def test_blocks(self) -> None:
        """
        L{blocksIn} finds complete blocks at any indentation, and L{shows} compares them by lines.
        """
        page = "x\n\n.. code-block:: python\n\n   if a:\n\n       b\n\ny\n"
        (block,) = blocksIn(Path("a.rst"), page)
        self.assertEqual((block.language, block.text), ("python", "if a:\n\n    b"))
        (block,) = blocksIn(Path("a.rst"), "so::\n\n   a\n\nand\n")
        self.assertEqual((block.language, block.text), ("", "a"))
        first, second = blocksIn(Path("a.md"), "x\n```toml\na = 1\n```\n```\nb\n```\n")
        self.assertEqual((first.language, first.text), ("toml", "a = 1"))
        self.assertEqual((second.language, second.text), ("", "b"))
        self.assertTrue(shows("def f():\n    if a:\n\n        b\n    c\n", "if a:\n\n    b"))
        self.assertFalse(shows("if a:\n    b\n", "if a:\n\n    b"))
        self.assertFalse(shows("", "a"))

    def test_typed(self) -> None:
        """
        L{typed} finds commands and the output below them.
        """
        block = Block(Path("a.md"), "console", "$ a \\\n  b\nc\n\nd\n# e")
        self.assertEqual(list(typed(block)), [Typed("a    b", "c\n\nd"), Typed("e", "")])

    def test_sameShape(self) -> None:
        """
        Outputs have the same shape if they differ only in numbers and white space, or where there
        are dots.
        """
        for shown, real, same in [
            ("a 1.5 s", "a  12 s", True),
            ("a 1.5 s", "b 1.5 s", False),
            ("a ... c", "a b\nb c", True),
            ("a", "a b", False),
        ]:
            self.assertEqual(sameShape(shown, real), same, (shown, real))

    def test_mistakes(self) -> None:
        """
        L{mistakeIn} finds unknown flags before and after C{kaserver}, and of C{kaproto}.
        """
        for command, words in [
            ("x && .venv/bin/twistd -n --no kaserver", "no"),
            ("twistd -n kaserver --modes=2", "modes"),
            ("twistd -n kaserver --mode=4", "4"),
            ("kaproto ping --counts tcp:host:1", "counts"),
            ("python -m kaproto nonsense", "nonsense"),
        ]:
            *_others, parsed = commandsIn(Block(Path("a.md"), "sh", command))
            self.assertIn(words, str(mistakeIn(parsed)))
        for command in ("ls --counts", "kaproto ping --count=1 tcp:host:1", "twistd --no web"):
            self.assertIsNone(mistakeIn(shlex.split(command)), command)

    def test_links(self) -> None:
        """
        L{linksIn} finds links in both kinds of page.
        """
        text = "[a](b.md) [c](https://d.e) ```\n[e](f)\n```"
        self.assertEqual(list(linksIn(Path("a.md"), text)), ["b.md", "https://d.e"])
        text = (
            "`a <b.rst#c>`_ :doc:`d` :doc:`e <f>` :download:`g <h>`\n.. image:: i.svg\n"
            ":ref:`j <k>` `L m`_"
        )
        self.assertEqual(
            sorted(linksIn(Path("a.rst"), text)),
            sorted(["b.rst#c", "d.*", "f.*", "h", "i.svg", "#k", "#l-m"]),
        )

    def test_broken(self) -> None:
        """
        L{broken} finds links to missing files and anchors, and malformed addresses.
        """
        page = DOCS / "index.rst"
        for link, words in [
            ("nowhere.rst", "nowhere"),
            ("tutorial.rst#nothing", "anchor"),
            ("#nothing", "anchor"),
            ("https://nowhere", "address"),
            ("http://example.org/", "address"),
        ]:
            self.assertIn(words, str(broken(page, link)))
        for link in (
            "tutorial.rst",
            "tutorial.*",
            "tutorial.rst#refuse-a-client",
            "/tutorial.*",
            "#rules",
            "https://example.org/a#b",
        ):
            self.assertIsNone(broken(page, link), link)
