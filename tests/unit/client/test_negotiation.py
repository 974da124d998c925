"""
Tests for L{kaproto.client.negotiation}.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kaproto.client.negotiation import negotiate
from kaproto.errors import AuthenticationFailed, RemoteError
from kaproto.peer import Peer
from kaproto.policies import refusalFor
from kaproto.wire.message import rpcError
from kaproto.wire.programs import Procedure
from kaproto.wire.xdr import Packer, XDRError


def openPayload(name: str, flags: int) -> bytes:
    """
    @return: the arguments of C{CONNECT_OPEN}.
    """
    return Packer().optionalString(name).uint32(flags).packed()


def types(*numbers: int) -> bytes:
    """
    @return: the result of C{AUTH_LIST}.
    """
    packer = Packer().uint32(len(numbers))
    for number in numbers:
        packer.int32(number)
    return packer.packed()


UNKNOWN_AUTH_LIST = rpcError("unknown procedure: 66")
YES = Packer().int32(1).packed()
NO = Packer().int32(0).packed()


class Server:
    """
    A server with a fixed reply for each procedure.

    @ivar calls: the calls received.
    """

    def __init__(self, answers: Mapping[int, bytes | Exception]) -> None:
        self.calls: list[tuple[int, bytes]] = []
        self._answers = {66: types(0), 60: YES, 1: b"", **answers}

    async def call(self, procedure: int, payload: bytes) -> bytes:
        """
        Reply to a call.
        """
        self.calls.append((procedure, payload))
        answer = self._answers[procedure]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def procedures(self) -> list[int]:
        """
        @return: the procedures called.
        """
        return [procedure for procedure, _ in self.calls]


async def needNothing(offered: list[int]) -> None:
    """
    Authenticate to a server that requires no authentication.
    """


class NegotiateTests(SynchronousTestCase):
    """
    Tests for the client's side of opening.
    """

    def supported(self, server: Server) -> bool:
        """
        @return: whether keepalive is supported, after opening.
        """
        result = Deferred.fromCoroutine(negotiate(server.call, "test:///default", 0, needNothing))
        return self.successResultOf(result)

    def failure(self, server: Server) -> BaseException:
        """
        Fail to open.

        @return: the error.
        """
        result = Deferred.fromCoroutine(negotiate(server.call, "test:///default", 0, needNothing))
        error: BaseException = self.failureResultOf(result).value
        return error

    def test_order(self) -> None:
        """
        The client authenticates, asks for keepalive, and opens, in this order.
        """
        server = Server({})
        self.assertIs(self.supported(server), True)
        self.assertEqual(
            server.calls,
            [
                (Procedure.AUTH_LIST, b""),
                (Procedure.CONNECT_SUPPORTS_FEATURE, bytes.fromhex("0000000a")),
                (Procedure.CONNECT_OPEN, openPayload("test:///default", 0)),
            ],
        )

    def test_nameAndFlags(self) -> None:
        """
        The name and the flags are sent unchanged.
        """
        server = Server({})
        self.successResultOf(Deferred.fromCoroutine(negotiate(server.call, "", 1, needNothing)))
        self.assertEqual(server.calls[-1], (1, openPayload("", 1)))

    def test_onlyAuthenticate(self) -> None:
        """
        Without a name, the client does not open.
        """
        server = Server({})
        result = Deferred.fromCoroutine(negotiate(server.call, None, 0, needNothing))
        self.assertIs(self.successResultOf(result), True)
        self.assertEqual(
            [procedure for procedure, _ in server.calls],
            [Procedure.AUTH_LIST, Procedure.CONNECT_SUPPORTS_FEATURE],
        )

    def test_oneAfterTheOther(self) -> None:
        """
        Each call is made after the reply to the one before, since servers may reply out of order.
        """
        waiting: list[tuple[int, Deferred[bytes]]] = []

        def call(procedure: int, payload: bytes) -> Deferred[bytes]:
            waiting.append((procedure, Deferred()))
            return waiting[-1][1]

        result = Deferred.fromCoroutine(negotiate(call, "", 0, needNothing))
        for number, answer in ((66, types(0)), (60, YES), (1, b"")):
            self.assertNoResult(result)
            ((procedure, deferred),) = waiting
            self.assertEqual(procedure, number)
            waiting.clear()
            deferred.callback(answer)
        self.assertIs(self.successResultOf(result), True)

    def test_serverWithoutKeepAlive(self) -> None:
        """
        A server that denies keepalive, does not know the procedure, or replies with another error,
        can be opened, but not pinged.
        """
        for answer in (NO, rpcError("unknown procedure: 60"), RemoteError(1, 0, "not today")):
            server = Server({60: answer})
            self.assertIs(self.supported(server), False)
            self.assertEqual(server.procedures(), [66, 60, 1])

    def test_anyNonzeroIsYes(self) -> None:
        """
        Any nonzero number means that the server has keepalive.
        """
        for number in (1, 2, -1):
            self.assertIs(self.supported(Server({60: Packer().int32(number).packed()})), True)

    def test_refusedAtOnce(self) -> None:
        """
        Any error in reply to C{AUTH_LIST}, other than an old server's, ends the negotiation.
        """
        for error in (
            RemoteError(45, 7, "authentication failed: go away"),
            RemoteError(39, 7, "authentication required"),
            RemoteError(1, 7, "unknown procedure: 66"),
        ):
            server = Server({66: error})
            self.assertIs(self.failure(server), error)
            self.assertEqual(server.procedures(), [66])

    def test_authenticates(self) -> None:
        """
        The authenticator gets the server's list, and the next call waits until it has finished.
        """
        server = Server({66: types(1, 2)})
        offered: list[list[int]] = []
        done: Deferred[None] = Deferred()

        async def authenticate(choice: list[int]) -> None:
            offered.append(choice)
            await done

        result = Deferred.fromCoroutine(negotiate(server.call, "", 0, authenticate))
        self.assertNoResult(result)
        self.assertEqual(offered, [[1, 2]])
        self.assertEqual(server.procedures(), [66])
        done.callback(None)
        self.assertIs(self.successResultOf(result), True)
        self.assertEqual(server.procedures(), [66, 60, 1])

    def test_offered(self) -> None:
        """
        The authenticator gets even an empty list.  A server too old for C{AUTH_LIST} offers
        nothing.
        """
        for answer, expected in (
            (types(), []),
            (types(1, 0), [1, 0]),
            (types(77), [77]),
            (UNKNOWN_AUTH_LIST, []),
        ):
            offered: list[list[int]] = []

            async def authenticate(choice: list[int], offered: list[list[int]] = offered) -> None:
                offered.append(choice)

            server = Server({66: answer})
            result = Deferred.fromCoroutine(negotiate(server.call, "", 0, authenticate))
            self.assertIs(self.successResultOf(result), True)
            self.assertEqual(offered, [expected])
            self.assertEqual(server.procedures(), [66, 60, 1])

    def test_authenticationFails(self) -> None:
        """
        When authentication fails, its error is raised, and no more calls are made.
        """

        async def authenticate(choice: list[int]) -> None:
            raise AuthenticationFailed("wrong password")

        server = Server({66: types(1)})
        result = Deferred.fromCoroutine(negotiate(server.call, "", 0, authenticate))
        self.failureResultOf(result, AuthenticationFailed)
        self.assertEqual(server.procedures(), [66])

    def test_openRefused(self) -> None:
        """
        The server's error in reply to open is raised unchanged.
        """
        error = rpcError(refusalFor(Peer()), 9)
        self.assertIs(self.failure(Server({1: error})), error)

    def test_connectionLost(self) -> None:
        """
        The error for a lost connection is raised unchanged, at any call.
        """
        for procedure in (66, 60, 1):
            error = ConnectionResetError()
            server = Server({procedure: error})
            self.assertIs(self.failure(server), error)
            self.assertEqual(server.procedures()[-1], procedure)

    def test_garbage(self) -> None:
        """
        Replies that cannot be decoded are errors: truncated ones, and lists of authentication
        methods that are longer than the protocol allows.
        """
        for procedure, answer in (
            (66, b""),
            (66, types(1, 2)[:-1]),
            (66, types(*range(21))),
            (60, b"\0"),
        ):
            self.assertIsInstance(self.failure(Server({procedure: answer})), XDRError)
        self.assertIs(self.supported(Server({66: types(*range(20))})), True)
