"""
Tests that every promise about security names an existing test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from tests.pages import DOCS, PROJECT

_MARKDOWN = re.compile(r"^\|.*\| test \|\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)
_RST = re.compile(r"^   \* - Promise\n     - Test\n((?:   .*\n|\n)+)", re.MULTILINE)


def promisesIn(text: str) -> Iterator[str]:
    """
    @return: the rows of those tables in a page that have a column for tests.
    """
    for table in _MARKDOWN.findall(text):
        yield from table.splitlines()
    for table in _RST.findall(text):
        yield from re.split(r"^   \* - ", table, flags=re.MULTILINE)[1:]


def testsIn(text: str) -> list[str]:
    """
    @return: the names of tests, such as C{tests.unit.uri.test_parsing.NameTests.test_names}.
    """
    return re.findall(r"`(tests\.[\w.]+)`", text)


class PromisesTests(SynchronousTestCase):
    """
    Tests for the tables in the pages about security.
    """

    def test_named(self) -> None:
        """
        Each promise names a test, a test class or a test module that exists.
        """
        for page, least in (
            (PROJECT / "SECURITY.md", 15),
            (DOCS / "explanation" / "threat-model.rst", 45),
        ):
            text = page.read_text("utf-8")
            promises = list(promisesIn(text))
            self.assertGreaterEqual(len(promises), least)
            self.assertEqual([each for each in promises if not testsIn(each)], [])
            for name in testsIn(text):
                namedAny(name)

    def test_reader(self) -> None:
        """
        L{promisesIn} finds complete rows in both kinds of page, and skips other tables.
        """
        row = "   * - a\n     - ``tests.b``,\n       ``tests.c``\n"
        text = f"   * - Promise\n     - Test\n{row}   * - d\n     - e\n\nf ``tests.g``\n"
        rows = [testsIn(each) for each in promisesIn(text)]
        self.assertEqual(rows, [["tests.b", "tests.c"], []])
        text = "| a | test |\n|---|---|\n| b | `tests.c` |\n| d | e |\n\n| f | g |\n"
        self.assertEqual([testsIn(each) for each in promisesIn(text)], [["tests.c"], []])
