"""
Tests for L{kaproto.watch.choices}.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import cast

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.plugin import IPlugin, getPlugins
from twisted.protocols.basic import LineOnlyReceiver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import twisted.plugins
from kaproto.keepalive.liveness import KeepAlive
from kaproto.policies import Mandatory, Optional
from kaproto.testing import memoryPair
from kaproto.watch import IHeartbeatCodec, LineCodec, Words, choices, watched, watchedClient
from kaproto.watch.choices import CODECS, codecFor, installedCodecs, policyFor

NAMES = ["lines", "netstrings", "int8", "int16", "int32", "amp"]
EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples" / "keepalive"
ACME = LineCodec(Words(b"?", b"!", b"WATCH", b"WATCHED"), b"\n")
ACME.name = "acme"
IMPOSTOR = LineCodec(Words(b"?", b"!"))


class Acme(LineOnlyReceiver):
    """
    An application with a third party's protocol.
    """

    delimiter = b"\n"


class CodecTests(SynchronousTestCase):
    """
    Tests for choosing a codec by name.
    """

    def setUp(self) -> None:
        """
        Replace the installed plugins.
        """
        self.patch(choices, "getPlugins", self.plugins)

    def plugins(self, interface: object) -> Iterator[IHeartbeatCodec]:
        """
        Return a third party's plugins besides kaproto's own.
        """
        self.assertIs(interface, IHeartbeatCodec)
        return iter([IMPOSTOR, *CODECS, ACME])

    def test_installed(self) -> None:
        """
        kaproto's own codecs are listed first and cannot be replaced.  All provide the interface.
        """
        codecs = installedCodecs()
        self.assertEqual(list(codecs), [*NAMES, "acme"])
        self.assertIs(codecs["lines"], CODECS[0])
        for codec in codecs.values():
            verifyObject(IHeartbeatCodec, codec)

    def test_plugins(self) -> None:
        """
        Twisted finds kaproto's codecs as plugins.
        """
        found = {codec.name: codec for codec in getPlugins(IHeartbeatCodec)}
        self.assertEqual(
            {name: found[name] for name in NAMES}, dict(zip(NAMES, CODECS, strict=True))
        )
        for name in NAMES:
            verifyObject(IPlugin, found[name])

    def test_example(self) -> None:
        """
        The plugin of the documentation's example is found and works.
        """
        package = Path(self.mktemp()) / "twisted" / "plugins"
        copytree(EXAMPLES / "twisted" / "plugins", package)
        self.patch(twisted.plugins, "__path__", [*twisted.plugins.__path__, str(package)])
        self.addCleanup(sys.modules.pop, "twisted.plugins.acme_codecs", None)
        self.patch(choices, "getPlugins", getPlugins)
        self.assertEqual(codecFor("acme").ping, b"NOOP\n")

    def test_named(self) -> None:
        """
        Server and client can name a codec of kaproto or of a third party.
        """
        for name, ping, protocol in (("netstrings", b"4:PING,", Protocol), ("acme", b"?\n", Acme)):
            clock, terms = Clock(), KeepAlive(1, 2)
            factory = Factory.forProtocol(protocol)
            pair = memoryPair(
                watched(factory, Mandatory(terms), name, clock=clock),
                watchedClient(factory, terms, name, clock=clock),
                clock,
            )
            pair.advance(5)
            self.assertIn(ping, [data for _, data in pair.writtenBy("server")])
            pair.blackhole()
            pair.advance(5)
            self.assertTrue(pair.serverTransport.disconnected)

    def test_given(self) -> None:
        """
        A codec instance is returned unchanged.
        """
        self.assertIs(codecFor(IMPOSTOR), IMPOSTOR)

    def test_unknown(self) -> None:
        """
        The error for an unknown name lists the installed codecs.
        """
        error = self.assertRaises(ValueError, watched, Factory(), 2, "line")
        self.assertEqual(
            str(error),
            "there is no codec 'line': it is one of "
            "lines, netstrings, int8, int16, int32, amp, acme",
        )

    def test_noCodec(self) -> None:
        """
        A class instead of an instance is refused.
        """
        error = self.assertRaises(TypeError, codecFor, cast(IHeartbeatCodec, LineCodec))
        self.assertIn("a codec is an instance such as LineCodec(), or a name", str(error))


class PolicyTests(SynchronousTestCase):
    """
    Tests for choosing a policy.
    """

    def test_modes(self) -> None:
        """
        A number selects the mode, and a policy is returned unchanged.
        """
        self.assertEqual(policyFor(1), Optional())
        policy = Mandatory(KeepAlive(1, 2))
        self.assertIs(policyFor(policy), policy)

    def test_unknown(self) -> None:
        """
        Other numbers and objects are refused.
        """
        for number in (-1, 3):
            error = self.assertRaises(ValueError, policyFor, number)
            self.assertEqual(str(error), f"a mode is 0, 1 or 2, not {number}")
        for other in ("2", Mandatory, None):
            error = self.assertRaises(TypeError, policyFor, cast(int, other))
            self.assertIn("a policy is an instance such as Mandatory(), or a mode", str(error))
