"""
Tests for what the modules of the package export.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from inspect import getsource
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

import kaproto

PROJECT = Path(__file__).resolve().parent.parent
with patch.object(sys, "path", [str(PROJECT / "docs"), *sys.path]):
    import floors

CHECKING = ("TYPE_CHECKING",)
"""
Names that a module may define without exporting them.
"""


def modules() -> list[ModuleType]:
    """
    @return: every module of the package.
    """
    names = [each.name for each in walk_packages(kaproto.__path__, "kaproto.")]
    return [kaproto, *(import_module(name) for name in names)]


def defined(module: ModuleType) -> Iterator[str]:
    """
    @return: the names of classes, functions and values that a module defines.
    """
    for statement in ast.parse(getsource(module)).body:
        match statement:
            case (
                ast.ClassDef(name=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.AnnAssign(target=ast.Name(id=name))
                | ast.Assign(targets=[ast.Name(id=name)])
            ):
                yield name


class ExportsTests(SynchronousTestCase):
    """
    Tests for C{__all__}.
    """

    def test_found(self) -> None:
        """
        L{modules} and L{defined} find what they should, so that the other tests check something.
        """
        found = {f"{module.__name__}.{name}" for module in modules() for name in defined(module)}
        for name in (
            "kaproto.__version__",
            "kaproto.server.KeepAliveServerFactory",
            "kaproto.wire.message.PING",
            "kaproto.app.service.makeService",
        ):
            self.assertIn(name, found)

    def test_exist(self) -> None:
        """
        Every name in C{__all__} exists, and is listed once.
        """
        for module in modules():
            names = getattr(module, "__all__", [])
            self.assertEqual(len(names), len(set(names)), module.__name__)
            for name in names:
                self.assertTrue(hasattr(module, name), f"{module.__name__}.{name}")

    def test_complete(self) -> None:
        """
        Every public name that a module defines is in C{__all__}.
        """
        missing = [
            f"{module.__name__}.{name}"
            for module in modules()
            for name in defined(module)
            if not name.startswith("_") and name not in {*getattr(module, "__all__", ()), *CHECKING}
        ]
        self.assertEqual(missing, [])


class LazyTests(SynchronousTestCase):
    """
    Tests for the names of the package itself, which are loaded on first use.
    """

    def test_same(self) -> None:
        """
        Each is the same object as in the module that defines it, and in that module's C{__all__}.
        """
        for name, module in kaproto._MODULES.items():
            home = import_module(module)
            self.assertIs(getattr(kaproto, name), getattr(home, name))
            self.assertIn(name, home.__all__)

    def test_listed(self) -> None:
        """
        The names that can be loaded are those in C{__all__}, in C{dir()}, and visible to type
        checkers.
        """
        self.assertEqual({*kaproto._MODULES, "__version__"}, set(kaproto.__all__))
        self.assertEqual(set(kaproto.__all__) - set(dir(kaproto)), set())
        seen = {
            alias.name: node.module
            for node in ast.walk(ast.parse(getsource(kaproto)))
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("kaproto")
            for alias in node.names
        }
        self.assertEqual(seen, kaproto._MODULES)

    def test_others(self) -> None:
        """
        An unknown name raises AttributeError, and ImportError from C{from kaproto import}.
        """
        error = self.assertRaises(AttributeError, getattr, kaproto, "conect")
        self.assertEqual(str(error), "module 'kaproto' has no attribute 'conect'")
        self.assertRaises(ImportError, exec, "from kaproto import conect")


_IMPORT = re.compile(
    r"^ *(?:from (kaproto[\w.]*) import (\([^)]*\)|.*)|import (kaproto[\w.]*))", re.MULTILINE
)


def importsIn(text: str) -> Iterator[tuple[str, list[str]]]:
    """
    @param text: a program, or a page that contains programs.
    @return: each module of kaproto that is imported from, and the imported names.
    """
    for module, names, alone in _IMPORT.findall(text):
        found = (each.split(" as ")[0].strip() for each in names.strip("()").split(","))
        yield module or alone, [name for name in found if name]


class DoorsTests(SynchronousTestCase):
    """
    Tests that README, documentation and examples import only from public modules, and only what
    they export.
    """

    def test_documented(self) -> None:
        """
        Every import in them is from a public module, of a name in its C{__all__}.
        """
        pages = [PROJECT / "README.md", *(PROJECT / "docs").rglob("*.rst")]
        pages += [*(PROJECT / "docs").rglob("*.md"), *(PROJECT / "docs" / "examples").rglob("*.py")]
        found = 0
        for page in pages:
            for module, names in importsIn(page.read_text("utf-8")):
                found += 1
                where = f"{page.relative_to(PROJECT)}: {module}"
                self.assertIn(module, floors.DOORS, where)
                exported = getattr(import_module(module), "__all__", [])
                self.assertEqual([name for name in names if name not in exported], [], where)
        self.assertGreater(found, 10)

    def test_importsAreFound(self) -> None:
        """
        L{importsIn} finds imports in every form, also indented in a page.
        """
        text = (
            "import kaproto\n"
            "   from kaproto.client import connect as c, Login\n"
            "from kaproto.errors import (\n    A,\n    B,\n)\n"
            "from twisted import version\n"
        )
        self.assertEqual(
            list(importsIn(text)),
            [
                ("kaproto", []),
                ("kaproto.client", ["connect", "Login"]),
                ("kaproto.errors", ["A", "B"]),
            ],
        )
