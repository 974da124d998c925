"""
Tests for L{kaproto.keepalive.kernelwatch}.
"""

from __future__ import annotations

import socket
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kaproto.client import KeepAliveClientFactory
from kaproto.errors import DeliveryTimeout
from kaproto.interfaces import IKeepAlivePolicy
from kaproto.keepalive import kernelwatch as module
from kaproto.keepalive import suspicion
from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.kernel import Delivery
from kaproto.keepalive.kernelwatch import KernelWatch, TCPKeepAlive, Unacknowledged
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.pacemaker import TICK, Pacemaker
from kaproto.peer import Peer
from kaproto.policies import Disable, Mandatory, Optional, Policy
from kaproto.server import KeepAliveServerFactory
from kaproto.wire.message import Message, MessageType, Status, packMessage
from kaproto.wire.programs import REMOTE_PROGRAM
from kaproto.wire.xdr import Packer
from tests.support import FEATURE_KEEPALIVE, opening
from tests.support_sockets import tcpPair

OWN, OTHER = KeepAlive(2, 3), KeepAlive(7, 8)
OPEN = opening("", 0, serial=8)


class TCPKeepAliveTests(SynchronousTestCase):
    """
    Tests for L{TCPKeepAlive}.
    """

    def test_termsFor(self) -> None:
        """
        C{which} decides which peers the kernel watches, and with which terms.
        """
        nothing = KeepAlive(0, 0)
        for which, own, pinged, expected in (
            ("auto", OWN, False, OWN),
            ("auto", OWN, True, None),
            ("auto", None, False, None),
            ("auto", nothing, False, None),
            ("on", OWN, False, OWN),
            ("on", OWN, True, OWN),
            ("on", None, False, OTHER),
            ("on", nothing, False, OTHER),
            ("off", OWN, False, None),
        ):
            found = TCPKeepAlive(which, OTHER).termsFor(own, pinged=pinged)
            self.assertEqual(found, expected, (which, own, pinged))

    def test_bad(self) -> None:
        """
        Other values of C{which} are refused.
        """
        self.assertRaises(ValueError, TCPKeepAlive, "yes")


def found(inFlight: int, acknowledged: int) -> Delivery:
    """
    @return: the kernel's counters.
    """
    return Delivery(0, acknowledged, inFlight, 0)


class UnacknowledgedTests(SynchronousTestCase):
    """
    Tests for L{Unacknowledged}.
    """

    def test_looks(self) -> None:
        """
        Time counts while segments are in flight at every look and none is acknowledged.
        """
        for looks, expected in (
            ([found(0, 0)] * 4, [0, 0, 0, 0]),
            ([found(3, 5)] * 4, [0, 1, 2, 3]),
            ([found(3, 5), found(9, 5), found(1, 5)], [0, 1, 2]),
            ([found(3, 5), found(3, 6), found(3, 6)], [0, 0, 1]),
            ([found(3, 5), found(3, 5), found(0, 5), found(3, 5)], [0, 1, 0, 0]),
            ([found(3, 5), None, found(3, 5)], [0, 0, 0]),
            ([Delivery(9)] * 3, [0, 0, 0]),
        ):
            watch = Unacknowledged()
            self.assertEqual([watch.looked(now, look) for now, look in enumerate(looks)], expected)

    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1))
    def test_anything(self, looks: list[tuple[int, int]]) -> None:
        """
        The result is the time since the first of the latest looks with segments in flight and the
        same counter.
        """
        watch = Unacknowledged()
        waited = [
            watch.looked(now, found(inFlight, acknowledged))
            for now, (inFlight, acknowledged) in enumerate(looks)
        ][-1]
        alike = 0
        for inFlight, acknowledged in reversed(looks):
            if not inFlight or acknowledged != looks[-1][1]:
                break
            alike += 1
        self.assertEqual(waited, max(0, alike - 1))


class KernelWatchTests(SynchronousTestCase):
    """
    Tests for L{KernelWatch}.
    """

    def setUp(self) -> None:
        """
        Watch a peer whose counters the test sets.
        """
        self.clock = Clock()
        self.found: Delivery | None = found(0, 0)
        self.set: list[KeepAlive] = []
        self.deaths: list[DeliveryTimeout] = []
        self.tcp = True
        self.patch(module, "delivery", lambda _transport: self.found)
        self.patch(module, "setKernelKeepAlive", self.setOptions)
        self.pacemaker = Pacemaker(self.clock)
        self.watch = KernelWatch(
            StringTransport(), KeepAlive(1, 2), self.pacemaker, self.deaths.append
        )

    def setOptions(self, _transport: object, keepAlive: KeepAlive) -> bool:
        """
        Record the options.
        """
        self.set.append(keepAlive)
        return self.tcp

    def advance(self, seconds: float) -> None:
        """
        Advance the clock.
        """
        self.clock.pump([TICK] * round(seconds / TICK))

    def test_hostGone(self) -> None:
        """
        A host that acknowledges nothing is dead C{interval * (count + 1)} seconds after the first
        look at which segments were in flight.
        """
        self.assertTrue(self.watch.start())
        self.assertEqual(self.set, [KeepAlive(1, 2)])
        self.advance(1.5)
        self.found = found(4, 7)
        self.advance(3.4)
        self.assertEqual(self.deaths, [])
        self.advance(0.2)
        (death,) = self.deaths
        self.assertEqual((death.interval, death.count, death.silence), (1, 2, 3))
        self.assertEqual(
            str(death),
            "connection closed due to keepalive timeout: the host acknowledged nothing for 3.00 s "
            "of what was sent to it (interval 1 s, count 2)",
        )
        self.advance(10)
        self.assertEqual(len(self.deaths), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow(self) -> None:
        """
        A host that acknowledges a little now and then is alive, and so is one whose program does
        not read.
        """
        self.watch.start()
        for number in range(10):
            self.found = found(4, number)
            self.advance(2)
        self.found = found(0, 10)
        self.advance(100)
        self.assertEqual(self.deaths, [])
        self.watch.stop()

    def test_otherTransport(self) -> None:
        """
        A transport on which keepalive cannot be set is not watched.
        """
        self.tcp = False
        self.assertFalse(self.watch.start())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """
        A stopped watch leaves no timer and reports no death.
        """
        self.watch.start()
        self.found = found(1, 0)
        self.advance(2)
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.watch.due(100))
        self.assertEqual(self.deaths, [])
        self.watch.sendPing()


class BusyHeartbeatTests(SynchronousTestCase):
    """
    Tests for a peer that cannot be pinged at the moment.
    """

    def test_hostGone(self) -> None:
        """
        A busy peer's silence does not count, but it is dead when its host is gone.
        """
        clock = Clock()
        looks = [found(0, 0)] * 10 + [found(2, 1)] * 10
        self.patch(suspicion, "delivery", lambda _transport: looks.pop(0))
        for died in (True, False):
            deaths: list[object] = []
            transport = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 1))
            heartbeat = Heartbeat(
                transport, b"?", died=deaths.append if died else None, clock=clock
            )
            heartbeat.relay(lambda: None, lambda: True, lambda: False)
            looks[:] = [found(0, 0)] * 10 + [found(2, 1)] * 10
            heartbeat.start(KeepAlive(1, 2))
            clock.pump([TICK] * round(13.9 / TICK))
            self.assertFalse(transport.disconnecting or deaths)
            clock.pump([TICK] * round(0.2 / TICK))
            self.assertEqual([type(each) for each in deaths], [DeliveryTimeout] * died)
            self.assertEqual(transport.disconnecting, not died)
            heartbeat.end()
        self.assertEqual(clock.getDelayedCalls(), [])


class Broken(Policy):
    """
    A policy that raises an error.
    """

    name = "broken"

    def keepAlive(self, peer: Peer) -> KeepAlive | None:
        """
        @raise ZeroDivisionError: always.
        """
        raise ZeroDivisionError


class PeersTests(SynchronousTestCase):
    """
    Tests for which peers the kernel watches, on both ends.
    """

    def setUp(self) -> None:
        """
        Connect over the loopback interface.
        """
        ours, self.far = tcpPair(self)
        self.clock = Clock()
        self.transport = tcp.Connection(ours, Protocol(), MemoryReactor())
        self.transport.connected = True
        self.transport.getPeer = lambda: IPv4Address("TCP", "127.0.0.1", 1)  # type: ignore[method-assign]

    def options(self) -> tuple[int, ...]:
        """
        @return: idle, interval and count; empty if keepalive is off.
        """
        handle = self.transport.socket
        on = handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        found = (
            handle.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        return tuple(found) if on else ()

    def test_server(self) -> None:
        """
        By default the kernel watches clients that the policy would ping and that did not ask for
        keepalive.
        """
        for policy, which, asks, expected in (
            (Disable(OWN), "auto", False, ()),
            (Disable(OWN), "auto", True, ()),
            (Disable(OWN), "on", False, (7, 7, 8)),
            (Optional(OWN), "auto", False, (2, 2, 3)),
            (Optional(OWN), "auto", True, ()),
            (Optional(OWN), "off", False, ()),
            (Optional(OWN), "on", True, (2, 2, 3)),
            (Mandatory(OWN), "auto", True, ()),
        ):
            self.setUp()
            factory = KeepAliveServerFactory(cast(IKeepAlivePolicy, policy), clock=self.clock)
            factory.tcpKeepAlive = TCPKeepAlive(which, OTHER)
            protocol: Any = factory.buildProtocol(None)
            protocol.makeConnection(self.transport)
            if asks:
                protocol.dataReceived(packMessage(FEATURE_KEEPALIVE))
            protocol.dataReceived(packMessage(OPEN))
            self.assertEqual(self.options(), expected, (policy, which, asks))
            protocol.connectionLost()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_brokenPolicy(self) -> None:
        """
        An error in the policy is logged, and the connection opens.
        """
        factory = KeepAliveServerFactory(Broken(), clock=self.clock)
        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(self.transport)
        protocol.dataReceived(packMessage(OPEN))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.options(), ())
        protocol.connectionLost()

    def test_client(self) -> None:
        """
        A client that wants keepalive has the kernel watch a server that does not support it.
        """
        for has, keepAlive, expected in ((0, OWN, (2, 2, 3)), (1, OWN, ()), (0, None, ())):
            self.setUp()
            factory = KeepAliveClientFactory("", keepAlive=keepAlive, clock=self.clock)
            factory.registersCloseCallback = False
            protocol: Any = factory.buildProtocol(None)
            protocol.makeConnection(self.transport)
            answers = (Packer().uint32(1).int32(0), Packer().int32(has), Packer())
            for serial, (procedure, answer) in enumerate(zip((66, 60, 1), answers, strict=True)):
                protocol.dataReceived(
                    packMessage(
                        Message(
                            REMOTE_PROGRAM,
                            1,
                            procedure,
                            MessageType.REPLY,
                            serial,
                            Status.OK,
                            answer.packed(),
                        )
                    )
                )
            self.assertTrue(protocol.isAlive())
            self.assertEqual(self.options(), expected)
            protocol.connectionLost()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hostGone(self) -> None:
        """
        When the host of a client that the kernel watches is gone, the connection is closed and
        counted as dead.
        """
        factory = KeepAliveServerFactory(Optional(KeepAlive(1, 2)), clock=self.clock)
        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(self.transport)
        protocol.dataReceived(packMessage(OPEN))
        self.patch(module, "delivery", lambda _transport: found(1, 1))
        aborted: list[None] = []
        self.transport.abortConnection = lambda: aborted.append(None)  # type: ignore[method-assign]
        for _ in range(round(4.1 / TICK)):
            self.clock.advance(TICK)
        self.assertEqual(aborted, [None])
        protocol.connectionLost()
        self.assertEqual(factory.counters.dead, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
