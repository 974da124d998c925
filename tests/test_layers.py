"""
Tests that kaproto's modules depend on each other in one direction only, and that the core does no
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
The modules that do no I/O and read no clock.
"""

CLOCKS = {"asyncio", "datetime", "select", "selectors", "socket", "threading", "time"}

SOURCES = floors.moduleFiles()

LAZY = {f"kaproto.{name}": module for name, module in kaproto._MODULES.items()}
"""
The names that the package itself loads on first use, and the modules that define them.
"""


def importedBy(source: str, modules: set[str]) -> set[str]:
    """
    Find the imports of a module, at any depth.  An import of a lazy name counts as an import of the
    module that defines it.

    @param modules: the names of modules, as opposed to names in modules.
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
    The imports of each of kaproto's modules.  The package itself imports its lazy names only for
    type checkers, which L{CostTests} checks.
    """
    modules = {*SOURCES, "twisted.internet.reactor"}
    found = {name: importedBy(path.read_text("utf-8"), modules) for name, path in SOURCES.items()}
    found["kaproto"] -= set(LAZY.values())
    return found


class ImportsTests(SynchronousTestCase):
    """
    Tests for imports between modules.
    """

    def test_everyModuleHasItsFloor(self) -> None:
        """
        Every module is on a floor, by its own name or by its package's, and the floors have no
        other names.
        """
        rooms = {floors.roomOf(name) for name in SOURCES}
        self.assertEqual(sorted(name for floor in floors.FLOORS for name in floor), sorted(rooms))
        self.assertEqual(floors.DOORS - set(SOURCES), set())
        self.assertRaises(LookupError, floors.floorOf, "kaproto.attic.box")

    def test_table(self) -> None:
        """
        The pages show the current floors and public modules.  If they do not, run docs/floors.py.
        """
        for path, lines in floors.TABLES.items():
            self.assertEqual(floors.tableIn(path.read_text("utf-8")), "".join(lines()))
        table = "".join(floors.floorsTable())
        for name in SOURCES:
            shown = f"`{name}`" if floors.roomOf(name) == name else f"``{name.split('.', 2)[2]}``"
            self.assertIn(shown, table)

    def test_onlyDown(self) -> None:
        """
        No module imports another from a higher floor.
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
        No module imports itself through others.
        """
        graph = {importer: names & set(SOURCES) for importer, names in imports().items()}
        order = list(TopologicalSorter(graph).static_order())
        self.assertEqual(set(order), set(SOURCES))

    def test_importsAreFound(self) -> None:
        """
        L{importedBy} finds imports in every form and at any depth.
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
    Tests that the core does no I/O.
    """

    def test_theWholeOfWireIsCore(self) -> None:
        """
        All modules of C{kaproto.wire} belong to the core.
        """
        wire = {name for name in SOURCES if name.startswith("kaproto.wire.")}
        self.assertEqual(wire - CORE, set())
        self.assertEqual(CORE - set(SOURCES), set())

    def test_noClocksAndSockets(self) -> None:
        """
        The core imports no module of Python or Twisted that reads a clock or uses the network, and
        no module of kaproto outside the core.
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
        Importing the core installs no reactor, so that a program can still choose one.
        """
        self.assertNotIn("twisted.internet.reactor", loadedBy(CORE)[0])
        self.assertIn("twisted.internet.reactor", loadedBy({"twisted.internet.reactor"})[0])

    def test_noReactorElsewhere(self) -> None:
        """
        Importing all of kaproto installs no reactor either.
        """
        self.assertNotIn("twisted.internet.reactor", loadedBy(SOURCES)[0])


class CostTests(SynchronousTestCase):
    """
    Tests for the cost of importing the package.  Twisted does so in every program that parses an
    endpoint string, because kaproto adds endpoints.
    """

    def test_package(self) -> None:
        """
        C{import kaproto} loads fewer than ten modules, none of them Twisted's or another of
        kaproto's, and takes less than 5 ms of processor time.
        """
        modules, seconds = loadedBy({"kaproto"})
        self.assertEqual(
            {name for name in modules if name.partition(".")[0] == "kaproto"}, {"kaproto"}
        )
        self.assertLess(len(modules), 10, modules)
        self.assertNotIn("twisted", modules)
        # The best of several, since the first may have had to compile the module.
        least = min(seconds, *(loadedBy({"kaproto"})[1] for _again in range(4)))
        self.assertLess(least, 0.005)

    def test_names(self) -> None:
        """
        A lazy name loads the module that defines it, but no reactor.
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
