"""
The mechanism SCRAM-SHA-256 (RFC 5802, RFC 7677), for both ends: the password never crosses the
wire, and each end proves to the other that it knows it.

The messages are scramp's work, which the extra C{scram} installs.  Here is what connects it with
L{twisted.cred}.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from hashlib import sha256
from typing import Any, ClassVar, Final

import attrs
from scramp import ScramException, ScramMechanism
from twisted.cred.credentials import IUsernameHashedPassword
from twisted.cred.error import LoginFailed
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from kaproto.logbounds import BOUNDS
from kaproto.security.saslserver import Answer, IUser, SASLFailed

__all__ = ["ITERATIONS", "IScramCredentials", "ScramKeys", "ScramSHA256"]

ITERATIONS: Final = 4096
"""
How often the password is hashed, the least that RFC 7677 allows.
"""

_SALT_SIZE: Final = 16
_MECHANISM: Final = ScramMechanism("SCRAM-SHA-256")
_SECRET: Final = os.urandom(32)

_FORM: Final = re.compile(
    r"SCRAM-SHA-256\$([1-9][0-9]{3,6}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)"
)


@attrs.frozen
class ScramKeys:
    """
    What a server has to know of a password: enough to check it, and less than is needed to use
    it.

    @ivar salt: what the password was hashed with.
    @ivar iterations: how often.
    @ivar stored: checks the client's proof (C{StoredKey}).
    @ivar server: makes the server's own proof (C{ServerKey}).
    """

    salt: bytes = attrs.field(repr=False)
    iterations: int
    stored: bytes = attrs.field(repr=False)
    server: bytes = attrs.field(repr=False)

    @classmethod
    def fromPassword(
        cls, password: str, salt: bytes | None = None, iterations: int = ITERATIONS
    ) -> ScramKeys:
        """
        @param salt: by default random.
        @raise ValueError: when the password has characters that no password may have (RFC 4013).
        """
        if salt is None:
            salt = os.urandom(_SALT_SIZE)
        try:
            salt, stored, server, count = _MECHANISM.make_auth_info(password, iterations, salt)
        except ScramException as error:
            raise ValueError(f"no password can be that: {error}") from None
        return cls(salt, count, stored, server)

    @classmethod
    def fromText(cls, text: str) -> ScramKeys:
        """
        @param text: in the form in which PostgreSQL has it,
            C{SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER} with the last three in base64.
        @raise ValueError: when it is not in that form.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError("not of the form SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER")
        try:
            salt, stored, server = (
                base64.b64decode(each, validate=True) for each in match.groups()[1:]
            )
        except ValueError as error:
            raise ValueError(f"the salt or a key is not in base64: {error}") from None
        if not (len(stored) == len(server) == sha256().digest_size and len(salt) >= _SALT_MIN):
            raise ValueError("the salt or a key has the wrong length")
        if int(match[1]) < ITERATIONS:
            raise ValueError(f"there must be {ITERATIONS} iterations or more")
        return cls(salt, int(match[1]), stored, server)

    def toText(self) -> str:
        """
        @return: the form that L{fromText} reads.
        """
        salt, stored, server = (
            base64.b64encode(each).decode() for each in (self.salt, self.stored, self.server)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    @classmethod
    def fake(cls, username: bytes, secret: bytes, like: ScramKeys | None = None) -> ScramKeys:
        """
        Make up keys for somebody who does not exist, so that nobody sees that.

        @param secret: makes the same name have the same salt each time.
        @param like: keys of somebody who exists, whose sizes to take.
        """
        size = _SALT_SIZE if like is None else len(like.salt)
        count = ITERATIONS if like is None else like.iterations
        digest = b"".join(_digest(secret, bytes([n]) + username) for n in range(size // 32 + 1))
        return cls(digest[:size], count, os.urandom(32), os.urandom(32))

    def matches(self, password: str) -> bool:
        """
        @return: whether this is the password.
        """
        try:
            keys = self.fromPassword(password, self.salt, self.iterations)
        except ValueError:
            return False
        return hmac.compare_digest(keys.stored, self.stored)


_SALT_MIN: Final = 12


def _digest(secret: bytes, data: bytes) -> bytes:
    return hmac.digest(secret, data, "sha256")


def _explain(error: ScramException) -> str:
    wrong = error.server_error is not None and error.server_error.value == "invalid-proof"
    return "no such user or another password" if wrong else f"malformed message: {error}"


class IScramCredentials(Interface):
    """
    Somebody who can prove to know a password.
    """

    username: bytes = Attribute("The name that is given.")

    def challenge(keys: ScramKeys) -> Deferred[bool]:
        """
        Ask for the proof.  A checker that does not know the name asks all the same, with
        L{ScramKeys.fake}, so that its absence cannot be told from a wrong password.

        @return: fires with whether the proof was right.
        """


@implementer(IScramCredentials, IUsernameHashedPassword)
class _Proof:
    """
    What the checker is given, who says with which keys to challenge the client.

    @ivar username: the name that the client gave.
    @ivar keys: fires with the keys.
    """

    def __init__(self, username: bytes) -> None:
        self.username = username
        self.keys: Deferred[ScramKeys] = Deferred()
        self._result: Deferred[bool] = Deferred()

    def challenge(self, keys: ScramKeys) -> Deferred[bool]:
        """
        See L{IScramCredentials.challenge}.
        """
        if not self.keys.called:
            self.keys.callback(keys)
        return self._result

    def checkPassword(self, password: bytes) -> Deferred[bool]:
        """
        See L{IUsernameHashedPassword}: a checker that has the password itself.
        """
        salt = _digest(_SECRET, self.username)[:_SALT_SIZE]
        try:
            keys = ScramKeys.fromPassword(password.decode("utf-8"), salt)
        except ValueError:
            keys = ScramKeys.fake(self.username, _SECRET)
        return self.challenge(keys)

    def loginEnded(self, result: object) -> object:
        """
        The checker has come to an end.  If it asked for no proof, it does not know the name.
        """
        if not self.keys.called:
            # What a password costs is spent on this one too, or it would be told by the time.
            unknown = ScramKeys.fromPassword(
                "unknown", _digest(_SECRET, self.username)[:_SALT_SIZE]
            )
            self.keys.callback(attrs.evolve(unknown, stored=os.urandom(32)))
        return result

    def settle(self, *, proven: bool) -> None:
        """
        The client has proven that it knows the password, or not.
        """
        if not self._result.called:
            self._result.callback(proven)


class ScramSHA256:
    """
    One try.  See L{kaproto.security.saslserver.Mechanism}.
    """

    name: ClassVar[str] = "SCRAM-SHA-256"
    _log: ClassVar[Logger] = Logger(observer=BOUNDS)

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._keys: ScramKeys | None = None
        self._proof: _Proof | None = None
        self._user = ""
        self._server = _MECHANISM.make_server(self._lookUp)

    async def respond(self, data: bytes | None) -> Answer:
        """
        See L{kaproto.sasl.Mechanism.respond}.
        """
        if data is None:
            return Answer(b"", None)
        try:
            message = data.decode("utf-8")
            if self._proof is None:
                return await self._challenge(message)
            return await self._check(self._proof, message)
        except UnicodeDecodeError:
            raise SASLFailed("malformed message", self._user or None) from None
        except ScramException as error:
            raise SASLFailed(_explain(error), self._user or None) from None

    def abandon(self) -> None:
        """
        See L{kaproto.sasl.Mechanism.abandon}.
        """
        if self._proof is not None:
            self._proof.settle(proven=False)

    def _lookUp(self, username: str) -> tuple[bytes, bytes, bytes, int]:
        """
        scramp wants the keys as soon as it has found the name, which is too early: it is given
        none the first time, when only the name is of interest.
        """
        self._user = username
        keys = self._keys or ScramKeys.fake(b"", _SECRET)
        return keys.salt, keys.stored, keys.server, keys.iterations

    async def _challenge(self, message: str) -> Answer:
        _MECHANISM.make_server(self._lookUp).set_client_first(message)
        proof = self._proof = _Proof(self._user.encode())
        self._login: Deferred[Any] = self._portal.login(proof, None, IUser)
        self._login.addBoth(proof.loginEnded).addErrback(self._notLetIn)
        self._keys = await proof.keys
        self._server.set_client_first(message)
        first: str = self._server.get_server_first()
        return Answer(first.encode(), None)

    async def _check(self, proof: _Proof, message: str) -> Answer:
        self._server.set_client_final(message)
        proof.settle(proven=True)
        result = await self._login
        if result is None:
            raise SASLFailed("not let in", self._user)
        final: str = self._server.get_server_final()
        return Answer(final.encode(), str(IUser(result[1]).name))

    def _notLetIn(self, failure: Failure) -> None:
        """
        The portal does not let the client in.  When that is because a checker is broken, nobody
        else will say so: to the client it is all the same.
        """
        if failure.check(LoginFailed) is None:
            self._log.failure("a credentials checker failed", failure)
