"""
Both ends of a connection, sent any messages in any order, compared with models of the protocol.
"""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.errors import KeepAliveUnsupported, RemoteError
from kaproto.interfaces import ISession
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.policies import MODES
from kaproto.security.admission import AccessControl
from kaproto.security.users import makePortal
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from kaproto.wire.message import PING, PONG, packError, packMessage
from kaproto.wire.sasl import packStart
from kaproto.wire.xdr import Packer
from tests.harness.fuzz import machineSettings
from tests.harness.fuzz.oracle import Wire, cutAll, errorIn
from tests.harness.fuzz.tap import Tap
from tests.support import FakeBackend, FakeSession, call, feature, opening

ADDRESS: Final = UNIXAddress("/run/kaproto.sock")
REMOTE: Final = 0x20008086
NOT_IN: Final = (39, "authentication required")
NOT_OPEN: Final = (1, "internal error: hypervisor connection not open")
FAILED: Final = (45, "authentication failed: authentication failed")


class ServerModel(RuleBasedStateMachine):
    """
    A server.  The model knows whether the client has logged in, has asked for keepalive, is
    opening, is open, or is gone.
    """

    clock: Clock
    backend: FakeBackend
    factory: KeepAliveServerFactory
    protocol: KeepAliveServerProtocol
    tap: Tap
    mode: int
    needsLogin: bool
    isIn: bool
    ready: bool
    asked: bool
    isOpen: bool
    gone: bool
    later: Deferred[ISession] | None
    openSerial: int
    serial: int

    @initialize(
        mode=st.sampled_from((0, 1, 2)),
        login=st.booleans(),
        begun=st.sampled_from(("not at all", "by logging in", "by asking", "by opening")),
    )
    def connect(self, mode: int, login: bool, begun: str) -> None:
        """
        A client connects, and may make its first calls in the usual order.
        """
        self.clock = Clock()
        self.backend = FakeBackend()
        self.mode = mode
        checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")
        portal = makePortal([checker]) if login else None
        self.factory = KeepAliveServerFactory(
            MODES[mode].configured(None, KeepAlive(1000, 2)),
            self.backend,
            clock=IReactorTime(self.clock),
            accessControl=AccessControl(portal=portal),
            limits=Limits(failureDelay=0, loginTries=1000),
        )
        protocol = self.factory.buildProtocol(ADDRESS)
        assert isinstance(protocol, KeepAliveServerProtocol)
        self.protocol = protocol
        self.tap = Tap(self.clock, ADDRESS)
        self.tap.attach(protocol)
        self.needsLogin = login
        self.isIn = not login
        self.ready = False
        self.asked = self.isOpen = self.gone = False
        self.later: Deferred[ISession] | None = None
        self.openSerial = 0
        self.serial = 0
        if begun != "not at all" and login:
            self.saslInit()
            self.saslStart(b"secret")
        if begun in ("by asking", "by opening"):
            self.askForKeepAlive()
        if begun == "by opening":
            self.open("later")

    def ask(self, message: Any) -> list[Wire]:
        """
        Send a call, and run what takes no time.

        @return: the frames sent in answer.
        """
        before = len(self.tap.written)
        self.tap.feed(packMessage(message))
        frames, rest = cutAll(bytes(self.tap.written[before:]))
        assert not rest
        return frames

    def expect(self, message: Any, expected: tuple[int, str] | bytes | None) -> None:
        """
        Send a call, and check its answer.

        @param expected: the code and beginning of an error, or the payload of a reply; C{None} for
            no answer.
        """
        if self.gone:
            assert self.ask(message) == [], "nothing comes after the end"
            return
        frames = self.ask(message)
        if expected is None:
            assert frames == [], frames
            return
        (reply,) = frames
        assert reply.key == (message.program, message.version, message.procedure, message.serial)
        assert reply.kind == 1, reply
        if isinstance(expected, bytes):
            assert (reply.status, reply.payload) == (0, expected), (reply, expected)
        else:
            assert reply.status == 1, (reply, expected)
            error = errorIn(reply.payload)
            assert error is not None
            assert error[0] == expected[0], (error, expected)
            assert error[1].startswith(expected[1]), (error, expected)

    def next(self) -> int:
        """
        @return: a new serial.
        """
        self.serial += 1
        return self.serial

    @rule()
    def authList(self) -> None:
        """
        The client asks how to log in.
        """
        kind = 1 if self.needsLogin and not self.isIn else 0
        self.expect(call(66, serial=self.next()), Packer().uint32(1).int32(kind).packed())

    @rule()
    def saslInit(self) -> None:
        """
        The client begins to log in.
        """
        if self.isIn or self.ready:
            self.expect(call(67, serial=self.next()), FAILED)
            self.ready = False
        else:
            mechanisms = Packer().string("SCRAM-SHA-256,PLAIN").packed()
            self.expect(call(67, serial=self.next()), mechanisms)
            self.ready = True

    @rule(password=st.sampled_from((b"secret", b"secret", b"wrong", None)))
    def saslStart(self, password: bytes | None) -> None:
        """
        The client logs in with a right, wrong or missing password.
        """
        data = None if password is None else b"\0alice\0" + password
        message = call(68, packStart("PLAIN", data), self.next())
        if self.isIn or not self.ready:
            self.expect(message, FAILED)
        elif password is None:
            self.expect(message, Packer().int32(0).int32(0).uint32(0).packed())
            # The next step must have the password.
            self.expect(call(69, Packer().int32(1).uint32(0).packed(), self.next()), bytes(12))
            self.expect(call(67, serial=self.next()), FAILED)
        elif password == b"secret":
            self.expect(message, Packer().int32(1).int32(1).uint32(0).packed())
            self.isIn = not self.gone or self.isIn
        else:
            self.expect(message, FAILED)
        self.ready = False

    @rule()
    def saslStep(self) -> None:
        """
        The client continues a login that it has not begun.
        """
        self.expect(call(69, Packer().int32(1).uint32(0).packed(), self.next()), FAILED)
        self.ready = False

    @rule()
    def polkit(self) -> None:
        """
        The client tries polkit, which is not offered.
        """
        self.expect(call(70, serial=self.next()), FAILED)

    @rule()
    def askForKeepAlive(self) -> None:
        """
        The client asks for keepalive.
        """
        self.expect(feature(10, self.next()), b"\0\0\0\1" if self.isIn else NOT_IN)
        self.asked |= self.isIn and not self.gone

    @rule(number=st.sampled_from((8, 14, 15, -1)))
    def askForFeature(self, number: int) -> None:
        """
        The client asks for another feature.
        """
        answer = Packer().int32(number in (14, 15)).packed() if self.isOpen else NOT_OPEN
        self.expect(feature(number, self.next()), answer if self.isIn else NOT_IN)

    @rule(how=st.sampled_from(("now", "later", "fails", "no name", "garbage")))
    def open(self, how: str) -> None:
        """
        The client opens, and the backend opens at once, later or not.
        """
        self.backend.later = self.backend.error = None
        self.backend.session = FakeSession()
        message = opening(None if how == "no name" else "x", serial=self.next())
        if how == "garbage":
            message = message._replace(payload=b"\0\0\0\1\xff\xff\xff\xff")
        if not self.isIn:
            self.expect(message, NOT_IN)
        elif how == "garbage":
            self.expect(message, (39, "Unable to decode message payload"))
        elif self.isOpen or self.later is not None:
            self.expect(message, (1, "internal error: connection already open"))
        elif how == "no name":
            self.expect(message, (1, "internal error: connection not open"))
        elif self.mode == 2 and not self.asked:
            self.expect(message, (9, "operation failed: this server requires keepalive"))
            self.gone = True
        elif how == "later":
            later: Deferred[ISession] = Deferred()
            self.backend.later = later
            self.expect(message, None)
            if not self.gone:
                self.later, self.openSerial = later, message.serial
        elif how == "fails":
            self.backend.error = RemoteError(5, 0, "no driver")
            self.expect(message, (5, "no driver"))
        else:
            self.expect(message, b"")
            self.isOpen = not self.gone

    @precondition(lambda self: self.later is not None)
    @rule(well=st.booleans())
    def opened(self, well: bool) -> None:
        """
        The backend finishes opening, or fails to.
        """
        later, self.later = self.later, None
        assert later is not None
        before = len(self.tap.written)
        if self.gone:
            assert later.called, "nobody waits for it any more"
            return
        if well:
            later.callback(ISession(self.backend.session))
        else:
            later.errback(RemoteError(38, 7, "no route"))
        (reply,) = cutAll(bytes(self.tap.written[before:]))[0]
        assert (reply.serial, reply.status) == (self.openSerial, int(not well))
        self.isOpen = well

    @rule()
    def work(self) -> None:
        """
        The client makes a call that the backend answers.
        """
        answer = b"echo" if self.isOpen else NOT_OPEN
        message = call(FakeBackend.PROCEDURE, b"echo", self.next())
        self.expect(message, answer if self.isIn else NOT_IN)

    @rule(procedure=st.sampled_from((360, 361)))
    def register(self, procedure: int) -> None:
        """
        The client registers or deregisters the close callback.
        """
        answer = b"" if self.isOpen else NOT_OPEN
        self.expect(call(procedure, serial=self.next()), answer if self.isIn else NOT_IN)

    @rule(procedure=st.sampled_from((0, -1, 9999, 362)))
    def unknown(self, procedure: int) -> None:
        """
        The client calls an unknown procedure.
        """
        self.expect(call(procedure, serial=self.next()), (39, f"unknown procedure: {procedure}"))

    @rule()
    def elsewhere(self) -> None:
        """
        The client calls an unknown program, another version, and with a status.
        """
        self.expect(call(1, program=7, serial=self.next()), (39, "Cannot find program 7 version 1"))
        self.expect(call(1, version=2, serial=self.next()), (39, "Cannot find program"))
        self.expect(call(1, status=1, serial=self.next()), (39, "Unexpected message status 1"))

    @rule(kind=st.sampled_from((1, 2, 3, 6, 7)))
    def nothing(self, kind: int) -> None:
        """
        The client sends a message that is not a call.
        """
        self.expect(call(1, kind=kind, serial=self.next()), None)

    @rule()
    def ping(self) -> None:
        """
        The client pings, which is answered in every state.
        """
        self.clock.advance(1 / 64)
        before = len(self.tap.written)
        self.tap.feed(PING)
        assert self.tap.written[before:] == (b"" if self.gone else PONG)

    @rule(really=st.sampled_from((False, False, True)))
    def close(self, really: bool) -> None:
        """
        The client closes, though rarely, since that is the end.
        """
        if not really:
            return
        self.expect(call(2, serial=self.next()), b"" if self.isIn else NOT_IN)
        self.gone |= self.isIn

    @invariant()
    def agrees(self) -> None:
        """
        The server's state agrees with the model.
        """
        if not hasattr(self, "tap"):
            return
        assert not self.tap.wrongs, self.tap.wrongs
        assert self.tap.ending == self.gone
        watched = self.mode > 0 and self.asked and not self.gone
        assert (len(self.factory._monitor.pacemaker) > 0) == watched
        assert (self.protocol.session is not None) == (self.isOpen and not self.gone)
        assert len(self.factory.connections) == int(not self.gone)

    def teardown(self) -> None:
        """
        When the client is gone, no timer is left.
        """
        if hasattr(self, "tap"):
            self.tap.lose(ConnectionResetError())
            assert self.clock.getDelayedCalls() == []


class ClientModel(RuleBasedStateMachine):
    """
    A client.  It calls, if all goes well: C{AUTH_LIST}, the feature check, C{OPEN}, the feature
    check for the close callback, and its registration.
    """

    ORDER: Final = (66, 60, 1, 60, 360)

    clock: Clock
    protocol: KeepAliveClientProtocol
    tap: Tap
    opening: Deferred[KeepAliveClientProtocol]
    closed: Deferred[Exception]
    stage: int
    supported: bool
    gone: bool
    calls: dict[int, Deferred[bytes]]
    results: dict[int, object]
    expected: dict[int, object]
    seen: int

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        factory = KeepAliveClientFactory("x", clock=IReactorTime(self.clock))
        protocol = factory.buildProtocol(ADDRESS)
        assert isinstance(protocol, KeepAliveClientProtocol)
        self.protocol = protocol
        self.tap = Tap(self.clock, ADDRESS)
        self.tap.attach(protocol)
        self.opening = protocol.whenOpen()
        self.closed = protocol.whenClosed()
        self.opening.addErrback(lambda _: None)
        self.stage = 0
        self.supported = False
        self.gone = False
        self.calls: dict[int, Deferred[bytes]] = {}
        self.results: dict[int, object] = {}
        self.expected: dict[int, object] = {}
        self.seen = 0

    @property
    def waiting(self) -> bool:
        """
        Whether it waits for an answer before it is open.
        """
        return not self.gone and self.stage < len(self.ORDER)

    def answer(self, payload: bytes, status: int = 0) -> None:
        """
        Answer the call of this stage.
        """
        procedure = self.ORDER[self.stage]
        self.tap.feed(packMessage(call(procedure, payload, self.stage, kind=1, status=status)))

    @precondition(lambda self: self.waiting)
    @rule(yes=st.booleans())
    def good(self, yes: bool) -> None:
        """
        The call succeeds; a question is answered with yes or no.
        """
        procedure = self.ORDER[self.stage]
        self.answer(
            {
                66: Packer().uint32(int(yes)).int32(0).packed(),
                60: Packer().int32(int(yes)).packed(),
            }.get(procedure, b"")
        )
        if self.stage == 1:
            self.supported = yes
        self.stage = len(self.ORDER) if self.stage == 3 and not yes else self.stage + 1

    @precondition(lambda self: self.waiting)
    @rule(unknown=st.booleans())
    def error(self, unknown: bool) -> None:
        """
        The call fails with an error: unknown procedure, or another.
        """
        text = "unknown procedure: 66" if unknown else "refused"
        self.answer(packError(RemoteError(39, 7, text)), 1)
        if self.stage == 2 or (self.stage == 0 and not unknown):
            self.gone = True
        else:
            self.stage = len(self.ORDER) if self.stage >= 3 else self.stage + 1

    @rule(
        how=st.sampled_from(
            (
                "garbage",
                "login",
                {"serial": 999},
                {"procedure": 4242},
                {"program": 7},
                {"status": 2},
                {"kind": 0},
                {"kind": 3},
                {"kind": 6},
            )
        ),
        really=st.sampled_from((False, False, False, True)),
    )
    def spoil(self, how: str | dict[str, int], really: bool) -> None:
        """
        The answer cannot be decoded, or requires a login that is not configured, or a message
        answers no call.  This happens rarely, since it is the end.
        """
        if not really:
            return
        if isinstance(how, dict):
            which: dict[str, Any] = {
                "procedure": self.ORDER[min(self.stage, len(self.ORDER) - 1)],
                "serial": self.stage if self.waiting else 999,
                "kind": 1,
            }
            self.tap.feed(packMessage(call(**(which | how))))
        elif self.waiting and how == "garbage" and self.stage in (0, 1, 3):
            self.answer(b"\0\0")
        elif self.waiting and how == "login" and self.stage == 0:
            self.answer(Packer().uint32(1).int32(1).packed())
        else:
            return
        self.gone = True

    @rule(procedure=st.sampled_from((316, 362)))
    def event(self, procedure: int) -> None:
        """
        An event arrives, which changes nothing.
        """
        self.tap.feed(packMessage(call(procedure, b"\0\0\0\2", 1, kind=2)))

    @rule()
    def ping(self) -> None:
        """
        The server pings and gets a pong, in every state of the client.
        """
        self.clock.advance(1 / 64)
        self.look()
        self.tap.feed(PING)
        written = bytes(self.tap.written[self.seen :])
        self.seen = len(self.tap.written)
        assert written == (b"" if self.gone else PONG)

    @rule(interval=st.sampled_from((0, 100, 1000)))
    def setKeepAlive(self, interval: int) -> None:
        """
        The application starts keepalive, which fails if the server does not support it.
        """
        try:
            self.protocol.setKeepAlive(interval, 2)
        except KeepAliveUnsupported:
            known = self.supported and self.stage >= 3
            assert not known
            assert not self.gone
        except Exception:  # noqa: BLE001 - the reason
            assert self.gone
        else:
            assert self.supported
            assert len(self.protocol._kaproto.heartbeat.pacemaker) == int(interval > 0)

    @rule()
    def work(self) -> None:
        """
        The application makes a call.
        """
        done = self.protocol.call(REMOTE, 59)
        number = len(self.expected)
        done.addBoth(lambda result: self.results.__setitem__(number, result))
        if self.gone or self.stage < len(self.ORDER):
            assert number in self.results, "it cannot be called yet, or any more"
            self.expected[number] = self.results[number]
        else:
            self.calls[self.protocol._kaproto._replies.serial - 1] = done
            self.expected[number] = None

    @precondition(lambda self: self.calls and not self.gone)
    @rule(data=st.data())
    def workDone(self, data: st.DataObject) -> None:
        """
        The server answers one of those calls, in any order.
        """
        serial = data.draw(st.sampled_from(sorted(self.calls)))
        done = self.calls.pop(serial)
        assert not done.called
        self.tap.feed(packMessage(call(59, b"done", serial, kind=1)))
        assert done.called

    def look(self) -> None:
        """
        Check that only calls were written.
        """
        frames, rest = cutAll(bytes(self.tap.written[self.seen :]))
        self.seen = len(self.tap.written)
        assert not rest
        for frame in frames:
            assert frame.kind == 0, frame

    @invariant()
    def agrees(self) -> None:
        """
        The client has made the expected calls, and its state agrees with the model.
        """
        self.look()
        assert not self.tap.wrongs, self.tap.wrongs
        assert self.tap.ending == self.gone, self.protocol._kaproto.closing.reason
        frames = cutAll(bytes(self.tap.written))[0]
        own = [frame.procedure for frame in frames if frame.kind == 0 and frame.procedure != 59]
        assert own == list(self.ORDER[: len(own)])
        if not self.gone:
            assert len(own) >= min(self.stage + 1, 4), own
            isOpen = self.stage >= len(self.ORDER)
            assert self.opening.called == isOpen
            assert self.protocol.isAlive() == isOpen
            assert not self.closed.called
        else:
            assert not self.protocol.isAlive()
            assert self.closed.called
            assert self.opening.called
            assert all(done.called for done in self.calls.values())

    def teardown(self) -> None:
        """
        When the connection is gone, no timer is left, and all L{Deferred}s have fired.
        """
        self.tap.lose(ConnectionResetError())
        assert self.closed.called
        assert self.opening.called
        assert self.clock.getDelayedCalls() == []


class NegotiationModelTests(SynchronousTestCase):
    """
    Tests for both ends against their models.
    """

    def test_server(self) -> None:
        """
        A server answers any messages in any order as the protocol requires.
        """
        run_state_machine_as_test(ServerModel, settings=machineSettings(80, 30))

    def test_client(self) -> None:
        """
        A client opens whatever it is sent meanwhile, or closes with a reason.
        """
        run_state_machine_as_test(ClientModel, settings=machineSettings(80, 25))
