"""
Tests for L{kaproto.server}.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.address import UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from kaproto.errors import ConnectionClosed
from kaproto.interfaces import Admission, Refused
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.policies import Disable, Mandatory, Optional, Policy, refusalFor
from kaproto.program import Program
from kaproto.security.admission import AccessControl
from kaproto.security.users import makePortal
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.message import (
    PING,
    PONG,
    Status,
)
from kaproto.wire.programs import (
    REMOTE_PROGRAM,
)
from tests.support import (
    ADDRESS,
    FEATURE_KEEPALIVE,
    KEEPALIVE,
    OPEN,
    FakeBackend,
    Probe,
    Wire,
    errorOf,
    opening,
)
from tests.support_server import (
    AUTH_LIST,
    ServerTestCase,
    rpc,
)


class FactoryTests(ServerTestCase):
    """
    Tests for L{KeepAliveServerFactory}.
    """

    def test_defaults(self) -> None:
        """
        By default a server is in mode 0, opens any name and has only the remote program.
        """
        factory = KeepAliveServerFactory(clock=self.clock)
        self.assertIsInstance(factory.policy, Disable)
        self.assertEqual(set(factory.programs), {REMOTE_PROGRAM})
        self.assertEqual(factory.limits, Limits())
        wire = self.accept(factory)
        self.assertEqual(wire.ask(opening("anything:///")).status, Status.OK)

    def test_numbersCollide(self) -> None:
        """
        Two programs with the same number are refused.
        """

        class Second(Program):
            number = REMOTE_PROGRAM

        for programs, number in (([Probe(), Probe()], "0x2f000001"), ([Second()], "0x20008086")):
            error = self.assertRaises(
                ValueError, KeepAliveServerFactory, programs=programs, clock=self.clock
            )
            self.assertEqual(str(error), f"two programs have the number {number}")

    def test_instances(self) -> None:
        """
        A class instead of an instance, or an object of another kind, is refused by the constructor.
        """
        for arguments, message in (
            ({"policy": Mandatory}, "policy is the class Mandatory, not an instance: write Mandat"),
            ({"policy": "2"}, "policy is '2', which does not provide IKeepAlivePolicy"),
            ({"policy": 1, "mode": 2}, "policy=1 and mode=2: give one of the two"),
            ({"backend": FakeBackend}, "backend is the class FakeBackend, not an instance: write "),
            ({"backend": "x"}, "backend is 'x', which does not provide IBackend"),
            ({"programs": [Probe]}, "a program is the class Probe, not an instance: write Probe()"),
            ({"programs": [7]}, "a program is 7, which does not provide IProgram"),
        ):
            make: Any = KeepAliveServerFactory
            error = self.assertRaises(TypeError, make, clock=self.clock, **arguments)
            self.assertIn(message, str(error))

    def test_connections(self) -> None:
        """
        The factory lists its connections while they exist.
        """
        wire = self.connect()
        factory = wire.protocol.factory
        self.assertEqual(factory.connections, [wire.protocol])
        other = self.accept(factory)
        self.assertEqual(factory.counters.accepted, 2)
        wire.lose()
        self.assertEqual(factory.connections, [other.protocol])

    def test_peer(self) -> None:
        """
        The peer is identified from the transport.
        """
        self.assertEqual(self.connect().protocol.peer, Peer(ADDRESS, "tcp", id=1))
        wire = self.accept(KeepAliveServerFactory(clock=self.clock), UNIXAddress(None))
        self.assertEqual(wire.protocol.peer.transport, "unix")

    def test_startKeepAlive(self) -> None:
        """
        An application can change a client's interval and count, and stop pinging it.
        """
        wire = self.connectOpen(Optional(KEEPALIVE), FEATURE_KEEPALIVE)
        for keepAlive, pings in ((KeepAlive(0.5, 9), 4), (KeepAlive(0, 0), 0)):
            wire.protocol.startKeepAlive(keepAlive)
            self.advance(2.1)
            self.assertEqual(wire.taken(), PING * pings)

    def test_disconnect(self) -> None:
        """
        An application can close a connection cleanly, or at once.
        """
        for end, aborted in (("disconnect", False), ("abort", True)):
            wire = self.connectOpen()
            reason = ConnectionClosed("enough")
            getattr(wire.protocol, end)(reason)
            self.assertEqual((wire.closing, wire.aborted), (True, aborted))
            wire.lose()
            self.assertIs(self.successResultOf(wire.protocol.whenClosed()), reason)

    def test_modes(self) -> None:
        """
        The number of a mode selects its policy; there are three.
        """
        self.assertIsInstance(KeepAliveServerFactory(2).policy, Mandatory)
        self.assertIsInstance(KeepAliveServerFactory(mode=1).policy, Optional)
        for mode in (3, -1, True):
            error = self.assertRaises(ValueError, KeepAliveServerFactory, mode=mode)
            self.assertIn(f"there is no mode {mode!r}; 0 never pings", str(error))


class ModeTests(ServerTestCase):
    """
    Tests for the three modes and for other policies.
    """

    def test_readOnlyListener(self) -> None:
        """
        On a read-only listener every connection is opened read-only.
        """
        factory = KeepAliveServerFactory(
            Disable(),
            self.backend,
            clock=Clock(),
            accessControl=AccessControl(readOnly=True),
        )
        protocol = factory.buildProtocol(ADDRESS)
        assert isinstance(protocol, KeepAliveServerProtocol)
        self.assertEqual(Wire(protocol).ask(OPEN).status, Status.OK)
        self.assertEqual([request.readOnly for request in self.backend.requests], [True])
        self.assertTrue(protocol.peer.readOnly)

    def test_disable(self) -> None:
        """
        In mode 0 keepalive is advertised, and no client is ever pinged.
        """
        wire = self.connect(Disable(KEEPALIVE))
        self.assertEqual(wire.ask(FEATURE_KEEPALIVE).payload, b"\0\0\0\1")
        wire.ask(OPEN)
        self.advance(20)
        self.assertEqual(wire.taken(), b"")
        wire.feed(PING)
        self.assertEqual(wire.taken(), PONG)

    def test_pingsWhoAsked(self) -> None:
        """
        In modes 1 and 2 a client is pinged once it has asked, even before it opens.
        """
        for policy in (Optional(KEEPALIVE), Mandatory(KEEPALIVE)):
            wire = self.connect(policy)
            self.advance(0.75)
            self.assertEqual(wire.ask(FEATURE_KEEPALIVE).payload, b"\0\0\0\1")
            self.advance(0.9)
            self.assertEqual(wire.taken(), b"")
            self.advance(0.2)
            self.assertEqual(wire.taken(), PING)
            wire.lose()

    def test_optionalUnasked(self) -> None:
        """
        In mode 1 a client that did not ask is admitted and not pinged. It is counted, and logged as
        one that mode 2 would refuse.
        """
        wire = self.connectOpen(Optional(KEEPALIVE))
        self.advance(20)
        self.assertEqual(wire.taken(), b"")
        self.assertUsable(wire)
        self.counted(wire, opened=1, warned=1)
        (line,) = self.logged()
        self.assertIn("tcp 192.0.2.1:54321: mode 2 would refuse", line)

    def test_optionalAsked(self) -> None:
        """
        In mode 1 a client that asked causes no log line.
        """
        wire = self.connectOpen(Optional(KEEPALIVE), FEATURE_KEEPALIVE)
        self.counted(wire, opened=1)
        self.assertEqual(self.logged(), [])

    def test_mandatoryAsked(self) -> None:
        """
        In mode 2 a client that asked is admitted.
        """
        wire = self.connectOpen(Mandatory(KEEPALIVE), FEATURE_KEEPALIVE)
        self.assertUsable(wire)
        self.counted(wire, opened=1)

    def test_mandatoryUnasked(self) -> None:
        """
        In mode 2 a client that did not ask gets one error, which says what to do, and the
        connection is closed once that is sent. It is counted and logged once.
        """
        wire = self.connect(Mandatory(KEEPALIVE))
        reply = wire.ask(opening(serial=3), AUTH_LIST, OPEN)
        self.assertEqual(reply.serial, 3)
        self.assertEqual(errorOf(reply), (9, 7, 2, refusalFor(wire.protocol.peer)))
        self.assertTrue(wire.closing)
        self.assertFalse(wire.aborted)
        wire.feed(AUTH_LIST)
        self.assertEqual(wire.taken(), b"")
        wire.lose()
        self.assertEqual(self.backend.requests, [])
        self.counted(wire, refused=1)
        (line,) = self.logged()
        self.assertIn("refused tcp 192.0.2.1:54321 by policy mandatory: operation failed:", line)

    def test_refusedAndDoesNotRead(self) -> None:
        """
        A refused client that does not read the error is disconnected after a timeout.
        """
        wire = self.connect(Mandatory(KEEPALIVE))
        wire.feed(OPEN)
        self.advance(4.9)
        self.assertFalse(wire.aborted)
        self.advance(0.2)
        self.assertTrue(wire.aborted)

    def test_refusedOnce(self) -> None:
        """
        A client that opens twice before it reads anything is refused once.
        """
        wire = self.connect(Mandatory(KEEPALIVE))
        wire.protocol._kaproto.pauseProducing()
        wire.feed(OPEN, OPEN)
        wire.protocol._kaproto.resumeProducing()
        self.assertEqual(len(wire.take()), 1)
        self.counted(wire, refused=1)
        self.assertEqual(len(self.logged()), 1)

    def test_askedTwice(self) -> None:
        """
        Asking a second time changes nothing.
        """
        wire = self.connect(Optional(KEEPALIVE))
        wire.feed(FEATURE_KEEPALIVE, FEATURE_KEEPALIVE)
        self.assertEqual(len(wire.take()), 2)
        self.assertEqual(wire.protocol.keepAlive, KEEPALIVE)

    def test_askedAfterOpen(self) -> None:
        """
        In mode 1 a client may ask after it has opened, and is pinged from then on.
        """
        wire = self.connectOpen(Optional(KEEPALIVE))
        self.assertEqual(wire.ask(FEATURE_KEEPALIVE).payload, b"\0\0\0\1")
        self.advance(1.1)
        self.assertEqual(wire.taken(), PING)

    def test_perPeer(self) -> None:
        """
        A policy decides for each peer whether to advertise keepalive, how to ping, and whether to
        admit it.
        """

        class ByAddress(Policy):
            name = "by address"

            def advertises(self, peer: Peer) -> bool:
                return peer.transport != "unix"

            def keepAlive(self, peer: Peer) -> KeepAlive | None:
                return KeepAlive(7, 9)

            def admit(self, peer: Peer) -> Admission | Refused:
                return Admission("welcome") if peer.transport == "unix" else Refused("not you")

        factory = KeepAliveServerFactory(ByAddress(), clock=self.clock)
        near = self.accept(factory, UNIXAddress(None))
        self.assertEqual(near.ask(FEATURE_KEEPALIVE).payload, b"\0\0\0\0")
        self.assertEqual(near.protocol.keepAlive, KeepAlive(0, 0))
        self.assertEqual(near.ask(OPEN).status, Status.OK)
        far = self.accept(factory)
        self.assertEqual(far.ask(FEATURE_KEEPALIVE).payload, b"\0\0\0\1")
        self.assertEqual(far.protocol.keepAlive, KeepAlive(7, 9))
        self.assertEqual(errorOf(far.ask(OPEN)), (9, 7, 2, "not you"))
        self.assertEqual(
            self.logged(),
            [
                "unix socket: welcome",
                "refused tcp 192.0.2.1:54321 by policy by address: not you",
            ],
        )


class Broken(Policy):
    """
    A policy that raises an error in every method.

    @ivar works: the methods that do not.
    """

    name = "broken"
    works: tuple[str, ...] = ()

    def advertises(self, peer: Peer) -> bool:
        """
        Raise an error, unless C{works} has this method.
        """
        if "advertises" in self.works:
            return True
        raise ZeroDivisionError("advertises")

    def keepAlive(self, peer: Peer) -> KeepAlive | None:
        """
        Raise an error.
        """
        raise ZeroDivisionError("keepAlive")

    def admit(self, peer: Peer) -> Admission | Refused:
        """
        Raise an error.
        """
        raise ZeroDivisionError("admit")


class BrokenPolicyTests(ServerTestCase):
    """
    Tests for policies that raise errors: no client is admitted or pinged, and the log has the
    reason.
    """

    def assertLogged(self, where: str) -> None:
        """
        Check that the log names the policy and the method.
        """
        (failure,) = self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(str(failure.value), where)
        (line,) = (each for each in self.logged(LogLevel.critical) if where in each)
        self.assertIn(f"policy broken failed in {where}() for tcp 192.0.2.1:54321", line)

    def test_feature(self) -> None:
        """
        If a policy fails when the client asks, it counts as a client that did not ask: it is
        answered 0 and not pinged.
        """

        class Advertising(Broken):
            works = ("advertises",)

        for policy, where in ((Broken(), "advertises"), (Advertising(), "keepAlive")):
            wire = self.connect(policy)
            self.assertEqual(wire.ask(FEATURE_KEEPALIVE).payload, bytes(4))
            self.assertLogged(where)
            self.assertFalse(wire.protocol.peer.asked)
            self.assertEqual(wire.protocol.keepAlive, KeepAlive(0, 0))
            self.assertUsable(wire)

    def test_mandatory(self) -> None:
        """
        A client whose request for keepalive failed in this way is refused by mode 2, so none is
        admitted without pings.
        """

        class BrokenMandatory(Broken):
            def admit(self, peer: Peer) -> Admission | Refused:
                return Mandatory().admit(peer)

        wire = self.connect(BrokenMandatory())
        wire.ask(FEATURE_KEEPALIVE)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(errorOf(wire.ask(OPEN))[0], 9)
        self.assertTrue(wire.closing)

    def test_open(self) -> None:
        """
        If a policy fails when the client opens, the client is refused, with a hint to the server's
        log.
        """
        wire = self.connect(Broken())
        code, domain, level, message = errorOf(wire.ask(OPEN))
        self.assertEqual((code, domain, level), (9, 7, 2))
        self.assertIn("its keepalive policy failed; the server's log has the reason", message)
        self.assertLogged("admit")
        self.assertTrue(wire.closing)
        wire.lose()
        self.counted(wire, refused=1)


class StartsOpenTests(ServerTestCase):
    """
    Tests for servers with C{startsOpen}, whose clients need not open.
    """

    def serveOpen(self, policy: Policy | None = None) -> Wire[KeepAliveServerProtocol]:
        """
        Connect a client to a server with C{startsOpen}.
        """
        factory = KeepAliveServerFactory(
            policy, programs=[self.probe], clock=self.clock, startsOpen=True
        )
        return self.accept(factory)

    def test_open(self) -> None:
        """
        Calls are answered from the start, without a deadline, pings or the remote program.
        """
        wire = self.serveOpen(Optional(KEEPALIVE))
        self.assertEqual(wire.ask(Probe.message(Probe.ECHO, b"abcd")).payload, b"abcd")
        self.assertEqual(
            errorOf(wire.ask(AUTH_LIST)), rpc("Cannot find program 536903814 version 1")
        )
        wire.feed(PING)
        self.assertEqual(wire.taken(), PONG)
        self.advance(100)
        self.assertEqual(wire.taken(), b"")
        self.assertFalse(wire.closing)
        self.assertEqual(wire.protocol.factory.counters.opened, 1)

    def test_refused(self) -> None:
        """
        A client that the policy refuses gets the refusal for each call. It is disconnected at the
        deadline for opening and not earlier, since closing at once could lose the refusal.
        """
        wire = self.serveOpen(Mandatory(KEEPALIVE))
        refusal = (9, 7, 2, refusalFor(wire.protocol.peer))
        for _ in range(2):
            self.assertEqual(errorOf(wire.ask(Probe.message(Probe.ECHO))), refusal)
        self.assertFalse(wire.closing)
        self.assertEqual(wire.protocol.factory.counters.refused, 1)
        self.assertEqual(self.probe.calls, [])
        ended = wire.protocol.whenClosed()
        wire.lose()
        self.assertIn(refusal[-1], str(self.successResultOf(ended)))
        silent = self.serveOpen(Mandatory(KEEPALIVE))
        self.advance(11)
        self.assertTrue(silent.closing)

    def test_noLogin(self) -> None:
        """
        C{startsOpen} cannot be combined with a login, which needs the remote program.
        """
        error = self.assertRaises(
            ValueError,
            KeepAliveServerFactory,
            clock=self.clock,
            accessControl=AccessControl(makePortal([InMemoryUsernamePasswordDatabaseDontUse()])),
            startsOpen=True,
        )
        self.assertIn("log in", str(error))
