"""
Tests for L{kaproto.security.saslclient}.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

from scramp import ScramMechanism
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kaproto.errors import AuthenticationFailed, RemoteError
from kaproto.security.admission import mechanismsFor
from kaproto.security.mechanism import SASLFailed
from kaproto.security.saslclient import Login, authenticate, chooseMechanism
from kaproto.security.saslserver import SASLServer
from kaproto.security.scramkeys import ScramKeys
from kaproto.security.users import makePortal
from kaproto.wire.programs import AuthType, Procedure
from kaproto.wire.sasl import SASLResult, packMechanisms, packResult, unpackStart, unpackStep
from kaproto.wire.xdr import XDRError

SASL = [int(AuthType.SASL)]
ALICE = Login("alice", "sesame")


class LoginTests(SynchronousTestCase):
    """
    Tests for L{Login}.
    """

    def test_secret(self) -> None:
        """
        C{repr()} does not show the password.
        """
        self.assertEqual(repr(ALICE), "Login(user='alice', mechanism=None)")


class ChooseTests(SynchronousTestCase):
    """
    Tests for L{chooseMechanism}.
    """

    def test_strongest(self) -> None:
        """
        The strongest mechanism that both ends support is chosen, unless one is asked for.
        """
        both = ["PLAIN", "DIGEST-MD5", "SCRAM-SHA-256"]
        self.assertEqual(chooseMechanism(both, None, secure=True), "SCRAM-SHA-256")
        self.assertEqual(chooseMechanism(["PLAIN"], None, secure=True), "PLAIN")
        self.assertEqual(chooseMechanism(both, "PLAIN", secure=True), "PLAIN")

    def test_insecure(self) -> None:
        """
        PLAIN is not used on an insecure transport, even if it is asked for.
        """
        offered = ["PLAIN", "SCRAM-SHA-256"]
        self.assertEqual(chooseMechanism(offered, None, secure=False), "SCRAM-SHA-256")
        for wanted in (None, "PLAIN"):
            with self.assertRaisesRegex(AuthenticationFailed, "PLAIN only over TLS"):
                chooseMechanism(["PLAIN"], wanted, secure=False)

    def test_none(self) -> None:
        """
        Without a common mechanism, the error says what each end supports and what to do.
        """
        for offered, wanted, secure, words in [
            (["GSSAPI"], None, True, "offers GSSAPI, this client has SCRAM-SHA-256, PLAIN; let"),
            (["GSSAPI"], None, True, "SCRAM-SHA-256 or PLAIN, for libvirtd with mech_list in"),
            ([], "GSSAPI", True, "offers none, .*, and the URI or the login requires GSSAPI; let"),
            (["DIGEST-MD5"], None, False, "offers DIGEST-MD5, .* connect by TLS .qemu.tls:"),
        ]:
            with self.assertRaisesRegex(AuthenticationFailed, words):
                chooseMechanism(offered, wanted, secure=secure)

    def test_withoutScramp(self) -> None:
        """
        Without scramp installed, PLAIN is chosen.
        """
        with mock.patch.dict(sys.modules, {"scramp": None}):
            chosen = chooseMechanism(["PLAIN", "SCRAM-SHA-256"], None, secure=True)
        self.assertEqual(chosen, "PLAIN")


class AuthenticateTests(SynchronousTestCase):
    """
    Tests for L{authenticate}.
    """

    def authenticate(
        self,
        call: Callable[[int, bytes], Any],
        login: Login = ALICE,
        types: list[int] = SASL,
    ) -> Deferred[None]:
        """
        Authenticate with a server.

        @param call: answers the client's calls.
        @param types: the authentication types that the server offers.
        """

        async def calling(procedure: int, payload: bytes) -> bytes:
            result = call(procedure, payload)
            return result if isinstance(result, bytes) else bytes(await result)

        return Deferred.fromCoroutine(authenticate(calling, types, login, secure=True))

    def refusal(self, *arguments: Any, kind: type[Exception] = AuthenticationFailed) -> str:
        """
        Fail to authenticate.

        @return: the error's text.
        """
        return str(self.failureResultOf(self.authenticate(*arguments), kind).value)

    def realServer(self, **users: bytes) -> tuple[SASLServer, Callable[[int, bytes], Any]]:
        """
        @return: kaproto's own server with these users, and a function that calls it.
        """
        portal = makePortal([InMemoryUsernamePasswordDatabaseDontUse(**users)])
        server = SASLServer(portal, mechanismsFor(portal, secure=True))

        async def call(procedure: int, payload: bytes) -> bytes:
            try:
                if procedure == Procedure.AUTH_SASL_INIT:
                    return packMechanisms(server.init())
                if procedure == Procedure.AUTH_SASL_START:
                    return packResult(await server.start(*unpackStart(payload)))
                return packResult(await server.step(unpackStep(payload)))
            except SASLFailed as error:
                raise RemoteError(45, 7, "authentication failed") from error

        return server, call

    def scriptedServer(
        self, *results: SASLResult | bytes, mechanism: str = "PLAIN"
    ) -> Callable[[int, bytes], Any]:
        """
        @return: a function that answers calls with the given results.
        """
        answers = iter(results)
        self.said: list[bytes | None] = []

        def call(procedure: int, payload: bytes) -> bytes:
            if procedure == Procedure.AUTH_SASL_INIT:
                return packMechanisms([mechanism])
            starts = procedure == Procedure.AUTH_SASL_START
            self.said.append(unpackStart(payload)[1] if starts else unpackStep(payload))
            answer = next(answers)
            return answer if isinstance(answer, bytes) else packResult(answer)

        return call

    def test_both(self) -> None:
        """
        Each mechanism accepts the right password and refuses a wrong one.
        """
        for mechanism in ("PLAIN", "SCRAM-SHA-256", None):
            server, call = self.realServer(alice=b"sesame")
            self.successResultOf(self.authenticate(call, Login("alice", "sesame", mechanism)))
            self.assertEqual(server.user, "alice")
            self.assertEqual(server.mechanism, mechanism or "SCRAM-SHA-256")
            _server, call = self.realServer(alice=b"other")
            message = self.refusal(call, Login("alice", "sesame", mechanism))
            self.assertEqual(
                message,
                "the server refuses 'alice': the user name or the password is wrong",
            )

    def test_otherErrors(self) -> None:
        """
        Errors that are not about the login are raised unchanged.
        """

        def call(procedure: int, payload: bytes) -> bytes:
            raise RemoteError(38, 7, "out of memory")

        self.assertIn("out of memory", self.refusal(call, kind=RemoteError))

    def test_otherKinds(self) -> None:
        """
        A server that requires a type other than SASL is an error that names the type.
        """
        message = self.refusal(self.scriptedServer(), ALICE, [int(AuthType.POLKIT), 77])
        self.assertEqual(message, "the server wants authentication by polkit, 77, not SASL")

    def test_undecodable(self) -> None:
        """
        A reply that cannot be decoded raises L{XDRError}.
        """
        self.refusal(self.scriptedServer(b"\0"), kind=XDRError)

    def test_plainWithNul(self) -> None:
        """
        A NUL in a name or password is refused, since PLAIN uses it as the separator.
        """
        for login in (Login("a\0b", "c"), Login("a", "b\0c")):
            self.assertIn("NUL", self.refusal(self.scriptedServer(), login))

    def test_plainTooLong(self) -> None:
        """
        A login too long for a message is an error with the limit.
        """
        half = "x" * 32767
        self.successResultOf(
            self.authenticate(self.scriptedServer(SASLResult(True, None)), Login(half, half))
        )
        message = self.refusal(self.scriptedServer(), Login(half, half + "x"))
        self.assertIn("have 65,535 bytes; libvirt's RPC carries 65,534 at most", message)

    def test_plainAskedForMore(self) -> None:
        """
        A server that asks for a second message of PLAIN is refused.
        """
        call = self.scriptedServer(SASLResult(complete=False, data=b""))
        self.assertIn("asks for a second message, but PLAIN has only one", self.refusal(call))

    def scramServer(self, password: str, **changes: bytes) -> Callable[[int, bytes], Any]:
        """
        @return: a function that answers as a SCRAM server that sends its proof in a separate step.

        @param changes: replacements for its messages, named C{first} and C{final}.
        """
        keys = ScramKeys.fromPassword(password)
        server = ScramMechanism("SCRAM-SHA-256").make_server(
            lambda _user: (keys.salt, keys.stored, keys.server, keys.iterations)
        )
        state = iter(("first", "final", "end"))

        def call(procedure: int, payload: bytes) -> bytes:
            if procedure == Procedure.AUTH_SASL_INIT:
                return packMechanisms(["SCRAM-SHA-256"])
            match next(state):
                case "first":
                    _mechanism, data = unpackStart(payload)
                    assert data is not None
                    server.set_client_first(data.decode())
                    first = server.get_server_first().encode()
                    return packResult(SASLResult(False, changes.get("first", first)))
                case "final":
                    data = unpackStep(payload)
                    assert data is not None
                    if "final" not in changes:
                        server.set_client_final(data.decode())
                        changes["final"] = server.get_server_final().encode()
                    return packResult(SASLResult(False, changes["final"]))
                case _:
                    return packResult(SASLResult(True, None))

        return call

    def test_scramInMoreSteps(self) -> None:
        """
        A server may send its proof in a separate step.
        """
        self.successResultOf(self.authenticate(self.scramServer("sesame")))

    def test_scramWithoutProof(self) -> None:
        """
        A server that accepts the client without a proof is not trusted.
        """
        call = self.scriptedServer(SASLResult(complete=True, data=None), mechanism="SCRAM-SHA-256")
        self.assertIn("does not prove that it knows the password", self.refusal(call))

    def test_scramWithWrongProof(self) -> None:
        """
        A server with a wrong proof is not trusted.
        """
        call = self.scramServer("other", final=b"v=AAAA")
        self.assertIn("does not prove that it knows the password", self.refusal(call))

    def test_scramMalformed(self) -> None:
        """
        A server's malformed SCRAM message is an error.
        """
        for first in (b"rubbish", b"\xff", b""):
            call = self.scramServer("sesame", first=first)
            self.assertIn("the server's SCRAM message is wrong", self.refusal(call))

    def test_scramTooManyIterations(self) -> None:
        """
        A server that demands too many iterations is refused.
        """

        def call(procedure: int, payload: bytes) -> bytes:
            if procedure == Procedure.AUTH_SASL_INIT:
                return packMechanisms(["SCRAM-SHA-256"])
            data = unpackStart(payload)[1]
            assert data is not None
            nonce = data.decode().partition("r=")[2]
            first = f"r={nonce}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=9999999".encode()
            return packResult(SASLResult(complete=False, data=first))

        self.assertIn("hash the password 9,999,999 times", self.refusal(call))

    def test_computed(self) -> None:
        """
        The password is hashed by the C{compute} function given, for example in a thread.
        """
        call = self.scramServer("sesame")
        seen: list[bytes] = []

        async def calling(procedure: int, payload: bytes) -> bytes:
            return bytes(call(procedure, payload))

        async def compute(function: Callable[[bytes], bytes], argument: bytes) -> bytes:
            seen.append(argument)
            return function(argument)

        self.successResultOf(
            Deferred.fromCoroutine(authenticate(calling, SASL, ALICE, secure=True, compute=compute))
        )
        self.assertIn(b",i=4096", seen[0])

    def test_scramImpossible(self) -> None:
        """
        A password with characters that SASLprep forbids is refused.
        """
        call = self.scriptedServer(mechanism="SCRAM-SHA-256")
        message = self.refusal(call, Login("a", "\x07"))
        self.assertIn("characters that SASLprep (RFC 4013) forbids", message)

    def test_endless(self) -> None:
        """
        A server that does not complete the login in a few steps is refused.
        """
        more = SASLResult(complete=False, data=None)
        keys = ScramKeys.fromPassword("sesame")
        server = ScramMechanism("SCRAM-SHA-256").make_server(
            lambda _user: (keys.salt, keys.stored, keys.server, keys.iterations)
        )
        answers: list[bytes] = []

        def call(procedure: int, payload: bytes) -> bytes:
            if procedure == Procedure.AUTH_SASL_INIT:
                return packMechanisms(["SCRAM-SHA-256"])
            answers.append(payload)
            if len(answers) == 1:
                data = unpackStart(payload)[1]
                assert data is not None
                server.set_client_first(data.decode())
                return packResult(SASLResult(False, server.get_server_first().encode()))
            if len(answers) == 2:
                data = unpackStep(payload)
                assert data is not None
                server.set_client_final(data.decode())
                return packResult(SASLResult(False, server.get_server_final().encode()))
            return packResult(more)

        self.assertIn("not complete after 8 steps", self.refusal(call))
        self.assertEqual(len(answers), 9)
