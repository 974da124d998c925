"""
Tests for L{kaproto.security.clientauth}.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import AuthenticationFailed, RemoteError
from kaproto.security.clientauth import Authentication
from kaproto.security.saslclient import Login
from kaproto.wire.programs import AuthType, Procedure
from kaproto.wire.sasl import SASLResult, packResult
from kaproto.wire.xdr import Packer

NONE, SASL, POLKIT = AuthType.NONE, AuthType.SASL, AuthType.POLKIT
ALICE = Login("alice", "secret")


class AuthenticationTests(SynchronousTestCase):
    """
    Tests for choosing an authentication type, and for polkit.
    """

    def setUp(self) -> None:
        """
        Create a server's answers and a list of the procedures called.
        """
        self.called: list[int] = []
        self.answers: Mapping[int, bytes | Exception] = {
            Procedure.AUTH_SASL_INIT: Packer().string("PLAIN").packed(),
            Procedure.AUTH_SASL_START: packResult(SASLResult(True, None)),
            Procedure.AUTH_POLKIT: Packer().int32(1).packed(),
        }

    async def call(self, procedure: int, payload: bytes) -> bytes:
        """
        Answer a call as the server does.
        """
        self.called.append(procedure)
        answer = self.answers[procedure]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def authenticate(self, authentication: Authentication, *offered: int) -> Deferred[None]:
        """
        Authenticate with a server that offers some types.

        @return: fires when the client has authenticated.
        """
        return Deferred.fromCoroutine(authentication.run(self.call, list(offered), secure=True))

    def test_ways(self) -> None:
        """
        By default a client with a login uses SASL, another one polkit, and neither authenticates if
        the server does not require it. A type that is asked for overrides that.
        """
        sasl = [Procedure.AUTH_SASL_INIT, Procedure.AUTH_SASL_START]
        polkit = [Procedure.AUTH_POLKIT]
        table: list[tuple[Authentication, list[int], list[Procedure]]] = [
            (Authentication(), [], []),
            (Authentication(), [NONE], []),
            (Authentication(ALICE), [], []),
            (Authentication(ALICE), [SASL, NONE], []),
            (Authentication(ALICE), [SASL], sasl),
            (Authentication(ALICE), [POLKIT, SASL, 77], sasl),
            (Authentication(lambda: ALICE), [SASL], sasl),
            (Authentication(), [SASL, POLKIT], polkit),
            (Authentication(ALICE), [POLKIT], polkit),
            (Authentication(ALICE, SASL), [NONE, SASL], sasl),
            (Authentication(ALICE, POLKIT), [SASL, POLKIT], polkit),
        ]
        for authentication, offered, procedures in table:
            self.called.clear()
            self.successResultOf(self.authenticate(authentication, *offered))
            self.assertEqual(self.called, procedures)

    def test_impossible(self) -> None:
        """
        If the client and the server have no type in common, the error names the types.
        """
        table: list[tuple[Authentication, list[int], str]] = [
            (Authentication(), [SASL], "authentication by sasl, and none was given"),
            (Authentication(), [77], "authentication by 77, and none was given"),
            (Authentication(ALICE), [77], "authentication by 77, and none was given"),
            (Authentication(None, SASL), [SASL], "by sasl, and none was given"),
            (Authentication(ALICE, SASL), [], "sasl was asked for .* offers no authentication"),
            (Authentication(ALICE, SASL), [NONE], "sasl was asked for .* offers none"),
            (Authentication(None, POLKIT), [SASL, 77], "polkit was asked for .* offers sasl, 77"),
        ]
        for authentication, offered, message in table:
            failure = self.failureResultOf(
                self.authenticate(authentication, *offered), AuthenticationFailed
            )
            self.assertRegex(str(failure.value), message)
            self.assertEqual(self.called, [])

    def test_loginIsNotThere(self) -> None:
        """
        A login is looked up only when the server requires one; a failure to find it is then an
        error.
        """

        def find() -> Login:
            raise ValueError("auth.conf: cannot be read")

        self.successResultOf(self.authenticate(Authentication(find), NONE))
        self.failureResultOf(self.authenticate(Authentication(find), SASL), ValueError)

    def test_polkitRefuses(self) -> None:
        """
        A refusal by polkit, or a reply without a decision, is L{AuthenticationFailed}; other errors
        are raised unchanged.
        """
        table: list[tuple[bytes | Exception, type[Exception], str]] = [
            (RemoteError(45, 60, "not authorized"), AuthenticationFailed, "user: not authorized"),
            (RemoteError(79, 60, "dismissed"), AuthenticationFailed, "user: dismissed"),
            (RemoteError(94, 60, "no agent"), AuthenticationFailed, "user: no agent"),
            (RemoteError(1, 7, "a bug"), RemoteError, "a bug"),
            (Packer().int32(0).packed(), AuthenticationFailed, "made no decision"),
        ]
        for answer, error, message in table:
            self.answers = {Procedure.AUTH_POLKIT: answer}
            failure = self.failureResultOf(self.authenticate(Authentication(), POLKIT), error)
            self.assertRegex(str(failure.value), message)
