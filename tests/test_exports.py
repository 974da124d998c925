"""
Tests for what the modules of the package export.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from inspect import getsource
from pkgutil import walk_packages
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

import kaproto


def modules() -> list[ModuleType]:
    """
    @return: every module of the package.
    """
    names = [each.name for each in walk_packages(kaproto.__path__, "kaproto.")]
    return [kaproto, *(import_module(name) for name in names)]


def defined(module: ModuleType) -> Iterator[str]:
    """
    @return: the names that a module itself gives to classes, functions and values.
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
    C{__all__} is right and complete.
    """

    def test_found(self) -> None:
        """
        Modules and what they define are found, so that the other tests here mean something.
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
        Every name in C{__all__} exists, and is there once.
        """
        for module in modules():
            names = getattr(module, "__all__", [])
            self.assertEqual(len(names), len(set(names)), module.__name__)
            for name in names:
                self.assertTrue(hasattr(module, name), f"{module.__name__}.{name}")

    def test_complete(self) -> None:
        """
        Every public name that a module defines is in its C{__all__}.
        """
        missing = [
            f"{module.__name__}.{name}"
            for module in modules()
            for name in defined(module)
            if not name.startswith("_") and name not in getattr(module, "__all__", ())
        ]
        self.assertEqual(missing, [])
