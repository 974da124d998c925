"""
Tests that kaproto's modules depend on each other in one direction only, and that its core does no
I/O.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

import kaproto

PROJECT = Path(__file__).resolve().parent.parent
with patch.object(sys, "path", [str(PROJECT / "docs"), *sys.path]):
    import floors

CORE = {
    "kaproto.arguments",
    "kaproto.errors",
    "kaproto.interfaces",
    "kaproto.keepalive.liveness",
    "kaproto.limits",
    "kaproto.peer",
    "kaproto.policies.conditions",
    "kaproto.policies.exceptions",
    "kaproto.policies.modes",
    "kaproto.rpc.negotiation",
    "kaproto.rpc.policycheck",
    "kaproto.security.clientauth",
    "kaproto.security.dn",
    "kaproto.security.saslclient",
    "kaproto.security.saslprep",
    "kaproto.wire.domains",
    "kaproto.wire.filter",
    "kaproto.wire.forms",
    "kaproto.wire.message",
    "kaproto.wire.programs",
    "kaproto.wire.proxyheader",
    "kaproto.wire.sasl",
    "kaproto.wire.structs",
    "kaproto.wire.xdr",
    "kaproto.wire.xdr.packer",
    "kaproto.wire.xdr.types",
    "kaproto.wire.xdr.unpacker",
}
"""
What does no I/O and reads no clock.
"""

CLOCKS = {"asyncio", "datetime", "select", "selectors", "socket", "threading", "time"}

SOURCES = floors.moduleFiles()

LAZY = {f"kaproto.{name}": module for name, module in kaproto._MODULES.items()}
"""
The names that the package itself loads when they are first used, and the modules that have them.
"""


def importedBy(source: str, modules: set[str]) -> set[str]:
    """
    Find what a module imports, anywhere in it.  Who imports a lazy name of the package imports
    the module that has it.

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
                found.add(name if name in modules else LAZY.get(name, node.module))
    return found


def imports() -> Mapping[str, set[str]]:
    """
    What each of kaproto's modules imports.  The package itself imports its lazy names only for
    type checkers, which L{CostTests} proves.
    """
    modules = {*SOURCES, "twisted.internet.reactor"}
    found = {name: importedBy(path.read_text("utf-8"), modules) for name, path in SOURCES.items()}
    found["kaproto"] -= set(LAZY.values())
    return found


class ImportsTests(SynchronousTestCase):
    """
    Who imports whom.
    """

    def test_everyModuleHasItsFloor(self) -> None:
        """
        Every module is on a floor, by its own name or by its package's, and there is nothing else
        on the floors.
        """
        rooms = {floors.roomOf(name) for name in SOURCES}
        self.assertEqual(sorted(name for floor in floors.FLOORS for name in floor), sorted(rooms))
        self.assertEqual(floors.DOORS - set(SOURCES), set())
        self.assertRaises(LookupError, floors.floorOf, "kaproto.attic.box")

    def test_table(self) -> None:
        """
        The pages show floors and doors as they are.  If they do not, run docs/floors.py.
        """
        for path, lines in floors.TABLES.items():
            self.assertEqual(floors.tableIn(path.read_text("utf-8")), "".join(lines()))
        table = "".join(floors.floorsTable())
        for name in SOURCES:
            shown = f"`{name}`" if floors.roomOf(name) == name else f"``{name.split('.', 2)[2]}``"
            self.assertIn(shown, table)

    def test_onlyDown(self) -> None:
        """
        No module imports one from a floor above its own.
        """
        upwards = [
            f"{importer} imports {name}"
            for importer, names in imports().items()
            for name in names & set(SOURCES)
            if floors.floorOf(name) > floors.floorOf(importer)
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
            "from kaproto import KeepAliveServerFactory as f\n"
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
                "kaproto.server",
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
        self.assertNotIn("twisted.internet.reactor", loadedBy(CORE)[0])
        self.assertIn("twisted.internet.reactor", loadedBy({"twisted.internet.reactor"})[0])

    def test_noReactorElsewhere(self) -> None:
        """
        Neither does importing all the rest.
        """
        self.assertNotIn("twisted.internet.reactor", loadedBy(SOURCES)[0])


class CostTests(SynchronousTestCase):
    """
    What it costs to import the package, which Twisted does in every program that parses an
    endpoint string, because of the endpoints that kaproto adds.
    """

    def test_package(self) -> None:
        """
        C{import kaproto} loads no module but itself and some that Python has loaded anyway, or
        nearly so, and takes less than 5 ms of processor time.
        """
        modules, seconds = loadedBy({"kaproto"})
        self.assertEqual(
            {name for name in modules if name.partition(".")[0] == "kaproto"}, {"kaproto"}
        )
        self.assertLess(len(modules), 10, modules)
        self.assertNotIn("twisted", modules)
        # The best of several: the first may have compiled it, or read it from a disk.
        least = min(seconds, *(loadedBy({"kaproto"})[1] for _again in range(4)))
        self.assertLess(least, 0.005)

    def test_names(self) -> None:
        """
        A lazy name loads the module that has it, and no reactor.
        """
        modules, _seconds = loadedBy({"kaproto"}, "kaproto.connect, kaproto.KeepAliveServerFactory")
        self.assertIn("kaproto.client", modules)
        self.assertIn("kaproto.server", modules)
        self.assertNotIn("twisted.internet.reactor", modules)


def loadedBy(modules: Iterable[str], then: str = "None") -> tuple[set[str], float]:
    """
    Import modules in a fresh interpreter.

    @param then: an expression to evaluate afterwards.
    @return: the modules that were not loaded before, and the processor time in seconds.
    """
    script = (
        "import sys, time\n"
        "before, begun = set(sys.modules), time.process_time()\n"
        f"import {', '.join(sorted(modules))}\n"
        "seconds = time.process_time() - begun\n"
        f"{then}\n"
        "print(seconds, *set(sys.modules) - before)\n"
    )
    command = [sys.executable, "-c", script]
    process = subprocess.run(command, capture_output=True, check=False, cwd=PROJECT, text=True)
    if process.returncode:
        raise AssertionError(process.stderr)
    seconds, *loaded = process.stdout.split()
    return set(loaded), float(seconds)
