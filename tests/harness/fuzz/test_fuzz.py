"""
A short run of the attacks of C{python -m tests.harness.fuzz}, always the same ones, and the attacks
that have found bugs.
"""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends import relay
from kaproto.errors import RemoteProtocolError
from kaproto.watch import Control, Kind, Words
from kaproto.watch.tunnelmessages import TunnelMessages
from kaproto.watch.tunnelwire import TunnelWire
from tests.harness.fuzz.attack import Attacker, Case
from tests.harness.fuzz.oracle import Violation
from tests.harness.fuzz.streamattack import StreamAttacker

SEEDS = (1, 2, 3, 4)
"""
The runs whose first attacks are used.
"""

ATTACKS = 100
"""
The number of attacks of each run.
"""

HARMFUL = (
    # An answer, and something that ends the connection, in one read.
    "gateway, by libvirtd|mid|"
    "0000002620008086000000010000003b00000001000000050000000000000004686f7374dd32 "
    "0000001e200080860000000100000157000000050000000300000000",
    # An answer with an impossible length.
    "gateway, by libvirtd|calls|0000000020008086000000010000003b000000010000000300000000",
    # The end of a message in progress, and something that ends the connection.
    "gateway, by libvirtd|calls|"
    "0000004020008086000000010000013c00000002000000010000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000 "
    "0000001e200080860000000100000157000000050000000300000000",
    # A feature check with no descriptors.
    "gateway, by a client|open|"
    "0000002420008086000000010000003c000000040000000500000000000000000000000a",
    # More than 64 KiB while libvirtd opens.
    "gateway, by a client|opening|000186a0200080860000000100000003000000000000000400000000"
    + "00" * 99_972,
    # One ping more than allowed in a second.
    "server|open|" + "0000001c6b656570000000010000000100000002000000000000000000"[:56] * 101,
    # Names that are not valid text.
    "client|alone with a login|"
    "00000024200080860000000100000042000000010000000000000000000000010000000100000000 "
    "0000002420008086000000010000004300000001000000010000000000000003ff2c5800",
)


_FEATURE = (0x20008086, 60)


class FuzzTests(SynchronousTestCase):
    """
    Tests for servers, clients and gateways that are sent any bytes, in any pieces.
    """

    def test_kept(self) -> None:
        """
        The attacks that have found bugs are handled correctly.
        """
        attacker = Attacker()
        with attacker.watching():
            for text in HARMFUL:
                case = Case.parse(text)
                self.assertEqual(str(case), text)
                attacker.carryOut(case, "1", Counter())

    def test_drawn(self) -> None:
        """
        Every attack on a server, a client or a gateway leads to correct replies, ignored messages
        or a close with a reason, and leaves nothing behind.
        """
        attacker = Attacker()
        with attacker.watching():
            for seed in SEEDS:
                for number in range(ATTACKS):
                    attacker.attack(f"{seed}:{number}")
        for name, tally in attacker.tallies.items():
            self.assertGreater(tally.mutated, 100, name)
            self.assertGreater(len(tally.outcomes), 6, name)

    def test_repeatable(self) -> None:
        """
        The same seed is the same attack.
        """
        first, second = (str(Attacker().drawn("7:7").case) for _time in range(2))
        self.assertEqual(first, second)

    def test_notices(self) -> None:
        """
        The attacker notices a gateway that relays what it should answer.
        """
        self.enterContext(patch.dict(relay._HANDLERS, {_FEATURE: relay.Relay._relayCall}))
        attacker = Attacker()
        with attacker.watching():
            self.assertRaises(Violation, attacker.carryOut, Case.parse(HARMFUL[3]), "1", Counter())

    def test_noticesExceptions(self) -> None:
        """
        The attacker notices an exception that is not a close with a reason.
        """

        def fails(_relay: object, _message: object, _raw: bytes) -> None:
            raise ZeroDivisionError("a bug")

        self.enterContext(patch.dict(relay._HANDLERS, {_FEATURE: fails}))
        attacker = Attacker()
        with attacker.watching():
            error = self.assertRaises(
                Violation, attacker.carryOut, Case.parse(HARMFUL[3]), "1", Counter()
            )
        self.assertNotIsInstance(error, RemoteProtocolError)


class StreamTests(SynchronousTestCase):
    """
    Tests for codecs, tunnels and WebSockets that are sent any bytes, in any pieces.
    """

    def test_drawn(self) -> None:
        """
        The application sees exactly its own bytes, or the connection ends with a reason.
        """
        attacker = StreamAttacker()
        with attacker.watching():
            for number in range(ATTACKS):
                attacker.attack(f"1:{number}")
        outcomes = sum((tally.outcomes for tally in attacker.tallies.values()), Counter[str]())
        self.assertGreater(len(outcomes), 4, outcomes)

    def test_notices(self) -> None:
        """
        The attacker notices a codec that mistakes an application's message for a ping, and a tunnel
        that loses a byte.
        """
        original = TunnelWire.wrap
        for mutant, case in (
            (
                patch.object(Words, "read", lambda _self, _payload: Control(Kind.PING)),
                "lines, optional||68690d0a",
            ),
            (
                patch.object(TunnelWire, "wrap", lambda self, data: original(self, data[1:])),
                f"tunnel, optional, wait=1||{TunnelMessages().ask(1).hex()}",
            ),
        ):
            attacker = StreamAttacker()
            with mutant, attacker.watching():
                self.assertRaises(Violation, attacker.carryOut, Case.parse(case), "1", Counter())
