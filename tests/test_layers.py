"""
Tests that kaproto's modules depend on each other in one direction only, and that its core does no
I/O.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import kaproto

ROOT = Path(kaproto.__file__).parent

FLOORS = (
    {"kaproto", "kaproto.endpointstring", "kaproto.errors", "kaproto.uri"},
    {"kaproto.peer", "kaproto.wire"},
    {"kaproto.logbounds", "kaproto.transport"},
    {"kaproto.keepalive", "kaproto.security"},
    {"kaproto.counters", "kaproto.interfaces"},
    {"kaproto.records"},
    {"kaproto.policies", "kaproto.program"},
    {"kaproto.rpc"},
    {"kaproto.client", "kaproto.server"},
    {"kaproto.backends", "kaproto.testing"},
    {"kaproto.app"},
)
"""
The floors from the ground up: modules, and packages with all that is in them.
"""

CORE = {
    "kaproto.errors",
    "kaproto.interfaces",
    "kaproto.keepalive.liveness",
    "kaproto.peer",
    "kaproto.policies.modes",
    "kaproto.rpc.negotiation",
    "kaproto.security.dn",
    "kaproto.security.saslclient",
    "kaproto.wire.filter",
    "kaproto.wire.message",
    "kaproto.wire.programs",
    "kaproto.wire.proxyheader",
    "kaproto.wire.sasl",
    "kaproto.wire.xdr",
}
"""
What does no I/O and reads no clock.
"""

CLOCKS = {"asyncio", "datetime", "select", "selectors", "socket", "threading", "time"}


def moduleName(path: Path) -> str:
    """
    The name by which a file is imported.
    """
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {moduleName(path): path for path in ROOT.rglob("*.py")}


def importedBy(source: str, modules: set[str]) -> set[str]:
    """
    Find what a module imports, anywhere in it.

    @param modules: the names that are modules and not names inside of modules.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and not node.level, "no relative imports"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in modules else node.module)
    return found


def imports() -> Mapping[str, set[str]]:
    """
    What each of kaproto's modules imports.
    """
    modules = {*SOURCES, "twisted.internet.reactor"}
    return {name: importedBy(path.read_text("utf-8"), modules) for name, path in SOURCES.items()}


def floorOf(name: str) -> int:
    """
    The number of a module's floor.

    @raise StopIteration: if it has none.
    """
    package = ".".join(name.split(".")[:2])
    return next(number for number, floor in enumerate(FLOORS) if package in floor)


class ImportsTests(SynchronousTestCase):
    """
    Who imports whom.
    """

    def test_everyModuleHasItsFloor(self) -> None:
        """
        Every module is on a floor, by its own name or by its package's, and there is nothing else
        on the floors.
        """
        packages = {".".join(name.split(".")[:2]) for name in SOURCES}
        self.assertEqual(sorted(name for floor in FLOORS for name in floor), sorted(packages))

    def test_onlyDown(self) -> None:
        """
        No module imports one from a floor above its own.
        """
        upwards = [
            f"{importer} imports {name}"
            for importer, names in imports().items()
            for name in names & set(SOURCES)
            if floorOf(name) > floorOf(importer)
        ]
        self.assertEqual(upwards, [])

    def test_noCycles(self) -> None:
        """
        No module imports itself, by however many others.
        """
        graph = {importer: names & set(SOURCES) for importer, names in imports().items()}
        order = list(TopologicalSorter(graph).static_order())
        self.assertEqual(set(order), set(SOURCES))

    def test_importsAreFound(self) -> None:
        """
        Imports are found wherever they are and however they are written.
        """
        source = (
            "import kaproto.errors, os.path\n"
            "from kaproto.keepalive import liveness\n"
            "from kaproto import __version__\n"
            "if TYPE_CHECKING:\n"
            "    from kaproto.client import connect as c\n"
            "def f():\n"
            "    from twisted.internet import reactor\n"
        )
        self.assertEqual(
            importedBy(source, {"kaproto.keepalive.liveness", "twisted.internet.reactor"}),
            {
                "kaproto",
                "kaproto.client",
                "kaproto.errors",
                "kaproto.keepalive.liveness",
                "os.path",
                "twisted.internet.reactor",
            },
        )


class CoreTests(SynchronousTestCase):
    """
    The core, which does no I/O.
    """

    def test_theWholeOfWireIsCore(self) -> None:
        """
        All modules that deal with bytes belong to the core.
        """
        wire = {name for name in SOURCES if name.startswith("kaproto.wire.")}
        self.assertEqual(wire - CORE, set())
        self.assertEqual(CORE - set(SOURCES), set())

    def test_noClocksAndSockets(self) -> None:
        """
        The core imports nothing that tells the time or talks to the network, neither Python's nor
        Twisted's, and no module that does.
        """
        everything = imports()
        allowed = {
            "twisted.internet.address",
            "twisted.internet.interfaces",
            "twisted.plugin",
        }
        for name in CORE:
            others = everything[name]
            self.assertEqual(others & CLOCKS, set(), name)
            self.assertEqual(others & set(SOURCES) - CORE - {"kaproto"}, set(), name)
            twisted = {other for other in others if other.startswith("twisted")}
            self.assertEqual(twisted - allowed, set(), name)

    def test_noReactor(self) -> None:
        """
        Importing the core installs no reactor, so that programs can choose theirs afterwards.
        """
        self.assertFalse(self.installsReactor(CORE))
        self.assertTrue(self.installsReactor({"twisted.internet.reactor"}))

    def test_noReactorElsewhere(self) -> None:
        """
        Neither does importing all the rest.
        """
        self.assertFalse(self.installsReactor(set(SOURCES)))

    def installsReactor(self, modules: set[str]) -> bool:
        """
        Import modules in a fresh interpreter.

        @return: whether there is a reactor then.
        """
        script = (
            f"import sys, {', '.join(sorted(modules))}\n"
            "print('twisted.internet.reactor' in sys.modules)"
        )
        process = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, check=False, cwd=ROOT.parent
        )
        self.assertEqual(process.returncode, 0, process.stderr.decode())
        self.assertIn(process.stdout, (b"True\n", b"False\n"))
        return process.stdout == b"True\n"
