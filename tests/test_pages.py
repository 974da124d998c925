"""
Tests that the code which the documentation shows is that of the examples, which are tested.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"^( *)\.\. code-block:: python\n((?:\1 +.*\n|\n)+)", re.MULTILINE)


def pythonBlocks(page: str) -> list[str]:
    """
    @return: the blocks of Python code in a page, without their indentation.
    """
    return [dedent(block).strip("\n") for _indentation, block in BLOCK.findall(page)]


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


class PagesTests(SynchronousTestCase):
    """
    Code in pages.
    """

    def test_python(self) -> None:
        """
        Every block of Python in a page stands in an example.
        """
        examples = [path.read_text("utf-8") for path in (DOCS / "examples").rglob("*.py")]
        missing = [
            f"{page.relative_to(DOCS)}: {block.splitlines()[0]}"
            for page in sorted(DOCS.rglob("*.rst"))
            if "_build" not in page.parts
            for block in pythonBlocks(page.read_text("utf-8"))
            if not any(shows(example, block) for example in examples)
        ]
        self.assertEqual(missing, [])

    def test_found(self) -> None:
        """
        Blocks are found whole, whatever their indentation, and compared line by line.
        """
        page = "x\n\n.. code-block:: python\n\n   if a:\n\n       b\n\ny\n"
        self.assertEqual(pythonBlocks(page), ["if a:\n\n    b"])
        self.assertTrue(shows("def f():\n    if a:\n\n        b\n    c\n", "if a:\n\n    b"))
        self.assertFalse(shows("if a:\n    b\n", "if a:\n\n    b"))
        self.assertFalse(shows("", "a"))
