"""
Tests for L{kaproto.rpc.remote}.
"""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import RemoteError
from kaproto.interfaces import ISession, OpenRequest
from kaproto.limits import Limits
from kaproto.peer import Peer
from kaproto.policies import Disable, Policy
from kaproto.rpc.events import Events
from kaproto.rpc.negotiation import Event, ServerNegotiation
from kaproto.rpc.outgoing import Outgoing
from kaproto.rpc.policycheck import PolicyCheck
from kaproto.rpc.remote import RemoteProgram
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.programs import PROGRAM_VERSION, REMOTE_PROGRAM, Feature, Procedure
from kaproto.wire.xdr import Packer, Unpacker, XDRError
from tests.support import FakeBackend


class Unadvertised(Policy):
    """
    A policy that does not advertise keepalive.
    """

    name = "unadvertised"

    def advertises(self, peer: Peer) -> bool:
        """
        Decline keepalive.
        """
        return False


class FakeConnection(ServerConnection):
    """
    The part of a connection that L{RemoteProgram} uses; it records calls.

    @ivar done: the names of the called methods.
    @ivar refusal: the error that L{openRequested} raises, if any.
    """

    def __init__(self, policy: Policy) -> None:
        self.peer = Peer()
        self.session: ISession | None = None
        self.events = Events(Outgoing(StringTransport()))
        self.refusal: RemoteError | None = None
        self._entrance = None
        self.negotiation = ServerNegotiation(self.peer, PolicyCheck(policy))
        self.negotiation.accepted(Limits(), login=False)
        self.done: list[str] = []

    def keepAliveRequested(self) -> None:
        """
        Record the call.
        """
        self.done.append("keepAliveRequested")

    def openRequested(self, payload: bytes) -> OpenRequest:
        """
        Admit everyone, unless there is a refusal.
        """
        if self.refusal is not None:
            raise self.refusal
        return OpenRequest("test:///default", 1)

    def sessionOpened(self, session: ISession) -> None:
        """
        Record the call and the session.
        """
        self.done.append("opened")
        self.session = session

    def openFailed(self) -> None:
        """
        Record the call.
        """
        self.done.append("openFailed")

    def closeRequested(self) -> None:
        """
        Record the call.
        """
        self.done.append("closeRequested")


class RemoteProgramTests(SynchronousTestCase):
    """
    Tests for the procedures that every server has.
    """

    def setUp(self) -> None:
        """
        Create a connection that is not open.
        """
        self.backend = FakeBackend()
        self.program = RemoteProgram(self.backend)
        self.connection = FakeConnection(Disable())
        self.protocol = KeepAliveServerProtocol()
        self.protocol._kaproto = self.connection

    def call(self, procedure: int, payload: bytes = b"") -> bytes:
        """
        @return: the result of a call that is answered immediately.
        """
        result = self.program.callReceived(self.protocol, procedure, payload)
        assert isinstance(result, bytes)
        return result

    def callLater(self, procedure: int) -> Deferred[bytes]:
        """
        @return: the result of a call that is answered later.
        """

        async def wait(result: bytes | Awaitable[bytes]) -> bytes:
            assert not isinstance(result, bytes)
            return await result

        return Deferred.fromCoroutine(
            wait(self.program.callReceived(self.protocol, procedure, b""))
        )

    def supports(self, feature: int) -> int:
        """
        @return: the answer to the feature check.
        """
        payload = Packer().int32(feature).packed()
        return Unpacker(self.call(Procedure.CONNECT_SUPPORTS_FEATURE, payload)).int32()

    def test_number(self) -> None:
        """
        The program has libvirt's number and version.
        """
        self.assertEqual((self.program.number, self.program.version), (REMOTE_PROGRAM, 1))
        self.assertEqual(PROGRAM_VERSION, 1)

    def test_knows(self) -> None:
        """
        The program has its own procedures and the backend's.  Events are not procedures.
        """
        for procedure in (1, 2, 60, 66, 67, 68, 69, 70, 360, 361, FakeBackend.PROCEDURE):
            self.assertTrue(self.program.knows(procedure), procedure)
        for procedure in (0, -1, 9999, Procedure.CONNECT_EVENT_CONNECTION_CLOSED):
            self.assertFalse(self.program.knows(procedure), procedure)

    def test_authList(self) -> None:
        """
        No authentication is required.
        """
        self.assertEqual(self.call(Procedure.AUTH_LIST), bytes([0, 0, 0, 1, 0, 0, 0, 0]))

    def test_authenticate(self) -> None:
        """
        Authentication that was not offered fails with libvirtd's error.
        """
        for procedure in (67, 68, 69, 70):
            error = self.assertRaises(RemoteError, self.call, procedure)
            self.assertEqual((error.code, error.domain), (45, 7))
            self.assertEqual(error.message, "authentication failed: authentication failed")

    def test_keepAliveFeature(self) -> None:
        """
        The answer to the keepalive feature is 1, and the connection is notified.
        """
        self.assertEqual(self.supports(Feature.PROGRAM_KEEPALIVE), 1)
        self.assertEqual(self.connection.done, ["keepAliveRequested"])
        self.assertTrue(self.connection.peer.asked)

    def test_unadvertised(self) -> None:
        """
        If the policy does not advertise keepalive, the answer is 0 and keepalive does not start.
        """
        self.connection = self.protocol._kaproto = FakeConnection(Unadvertised())
        self.assertEqual(self.supports(Feature.PROGRAM_KEEPALIVE), 0)
        self.assertEqual(self.connection.done, [])

    def test_otherFeatures(self) -> None:
        """
        Other features need an open connection; of these there are the close callback and the
        backend's.
        """
        self.assertRaises(RemoteError, self.supports, Feature.REMOTE_CLOSE_CALLBACK)
        self.connection.negotiation.advance(Event.ADMITTED)
        self.connection.negotiation.advance(Event.OPENED)
        self.connection.negotiation.advance(Event.ANSWERED)
        self.assertEqual(self.supports(Feature.REMOTE_CLOSE_CALLBACK), 1)
        self.assertEqual(self.supports(Feature.REMOTE_EVENT_CALLBACK), 1)
        for other in (Feature.FD_PASSING, 9999, -1):
            self.assertEqual(self.supports(other), 0)
        self.assertEqual(self.connection.done, [])

    def test_featureWithoutNumber(self) -> None:
        """
        A feature check without a number cannot be decoded.
        """
        self.assertRaises(XDRError, self.call, Procedure.CONNECT_SUPPORTS_FEATURE, b"\0")

    def test_open(self) -> None:
        """
        The session that the backend opens answers the backend's procedures.
        """
        self.assertEqual(self.call(Procedure.CONNECT_OPEN), b"")
        self.assertEqual(self.backend.requests, [OpenRequest("test:///default", 1)])
        self.assertEqual(self.connection.done, ["opened"])
        self.assertIs(self.connection.session, self.backend.session)
        self.assertEqual(self.call(FakeBackend.PROCEDURE, b"abcd"), b"abcd")

    def test_openRefused(self) -> None:
        """
        If the policy refuses, the backend is not asked to open.
        """
        self.connection.refusal = RemoteError(9, 7, "no")
        self.assertRaises(RemoteError, self.call, Procedure.CONNECT_OPEN)
        self.assertEqual(self.backend.requests, [])
        self.assertEqual(self.connection.done, [])

    def test_openFails(self) -> None:
        """
        If the backend fails to open, its error is the answer, and the connection is notified.
        """
        self.backend.error = RemoteError(5, 0, "no such host")
        self.assertRaises(RemoteError, self.call, Procedure.CONNECT_OPEN)
        self.assertEqual(self.connection.done, ["openFailed"])

    def test_openLater(self) -> None:
        """
        A backend may open asynchronously.
        """
        self.backend.later = Deferred()
        opening = self.callLater(Procedure.CONNECT_OPEN)
        self.assertNoResult(opening)
        self.assertEqual(self.connection.done, [])
        self.backend.later.callback(ISession(self.backend.session))
        self.assertEqual(self.successResultOf(opening), b"")
        self.assertEqual(self.connection.done, ["opened"])

    def test_openFailsLater(self) -> None:
        """
        A backend may fail asynchronously.
        """
        self.backend.later = Deferred()
        opening = self.callLater(Procedure.CONNECT_OPEN)
        self.backend.later.errback(RemoteError(5, 0, "no such host"))
        self.failureResultOf(opening, RemoteError)
        self.assertEqual(self.connection.done, ["openFailed"])

    def test_openCancelled(self) -> None:
        """
        Cancelling a pending open cancels the backend's Deferred.
        """
        cancelled: list[object] = []
        self.backend.later = Deferred(cancelled.append)
        opening = self.callLater(Procedure.CONNECT_OPEN)
        opening.cancel()
        self.failureResultOf(opening)
        self.assertEqual(cancelled, [self.backend.later])

    def test_close(self) -> None:
        """
        C{CONNECT_CLOSE} is answered and ends the connection.
        """
        self.assertEqual(self.call(Procedure.CONNECT_CLOSE), b"")
        self.assertEqual(self.connection.done, ["closeRequested"])

    def test_closeCallback(self) -> None:
        """
        A client can register and unregister for the close event.
        """
        self.assertEqual(self.call(Procedure.CONNECT_REGISTER_CLOSE_CALLBACK), b"")
        self.assertTrue(self.connection.events.closeCallbackRegistered)
        self.assertEqual(self.call(Procedure.CONNECT_UNREGISTER_CLOSE_CALLBACK), b"")
        self.assertFalse(self.connection.events.closeCallbackRegistered)
