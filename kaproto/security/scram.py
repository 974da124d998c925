"""
The mechanism SCRAM-SHA-256 (RFC 5802, RFC 7677) for a server.  The password never crosses the
wire, and each end proves to the other that it knows it.

scramp, which the extra C{scram} installs, reads and writes the messages.  This module connects it
with L{twisted.cred}.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from collections.abc import Collection
from hashlib import sha256
from typing import Any, ClassVar, Final, NamedTuple

import attrs
from scramp import ScramException, ScramMechanism
from twisted.cred.credentials import IUsernameHashedPassword
from twisted.cred.error import LoginFailed
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from kaproto.logbounds import BOUNDS
from kaproto.security.hashing import offReactor
from kaproto.security.saslclient import ITERATIONS_MAX
from kaproto.security.saslprep import prepareName, preparePassword
from kaproto.security.saslserver import WRONG, Admit, Answer, IUser, SASLFailed

__all__ = ["ITERATIONS", "IScramCredentials", "ScramKeys", "ScramSHA256", "Shape"]

ITERATIONS: Final = 4096
"""
How often a password is hashed, unless a file says otherwise: the least that RFC 7677 allows.
"""

_SALT_SIZE: Final = 16
_SALT_MIN: Final = 12
_SALT_MAX: Final = 128
_MESSAGE_MAX: Final = 2048
_MECHANISM: Final = ScramMechanism("SCRAM-SHA-256")
_SECRET: Final = os.urandom(32)

_FORM: Final = re.compile(
    r"SCRAM-SHA-256\$([1-9][0-9]{3,6}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)"
)

_CLIENT_FIRST: Final = re.compile(r"[^,]*,[^,]*,n=([^,]+),")
"""
The beginning of a client's first message, such as C{n,,n=alice,r=NONCE}.
"""


class Shape(NamedTuple):
    """
    What a client sees of a user's keys besides the salt itself.

    @ivar iterations: how often the password was hashed.
    @ivar saltSize: the length of the salt, in bytes.
    """

    iterations: int
    saltSize: int


_SHAPE: Final = Shape(ITERATIONS, _SALT_SIZE)


@attrs.frozen
class ScramKeys:
    """
    What a server keeps of a password: enough to check it, not enough to log in with.

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
        This takes about a millisecond for 4,096 iterations, 0.14 s for 600,000; see L{offReactor}.

        @param salt: by default random.
        @raise ValueError: if this cannot be a password.
        """
        if salt is None:
            salt = os.urandom(_SALT_SIZE)
        try:
            prepared = preparePassword(password.encode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise ValueError(f"this cannot be a password: {error}") from None
        salt, stored, server, count = _MECHANISM.make_auth_info(prepared, iterations, salt)
        return cls(salt, count, stored, server)

    @classmethod
    def fromText(cls, text: str) -> ScramKeys:
        """
        @param text: the form that PostgreSQL uses,
            C{SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER}, the last three in base64.
        @raise ValueError: if it has another form.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError("the form is not SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER")
        try:
            salt, stored, server = (
                base64.b64decode(each, validate=True) for each in match.groups()[1:]
            )
        except ValueError as error:
            raise ValueError(f"the salt or a key is not in base64: {error}") from None
        if not (
            len(stored) == len(server) == sha256().digest_size
            and _SALT_MIN <= len(salt) <= _SALT_MAX
        ):
            raise ValueError("the salt or a key has the wrong length")
        iterations = int(match[1])
        if not ITERATIONS <= iterations <= ITERATIONS_MAX:
            raise ValueError(
                f"{iterations:,} iterations, where {ITERATIONS:,} to {ITERATIONS_MAX:,} are allowed"
            )
        return cls(salt, iterations, stored, server)

    def toText(self) -> str:
        """
        @return: the form that L{fromText} reads.
        """
        salt, stored, server = (
            base64.b64encode(each).decode() for each in (self.salt, self.stored, self.server)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    @property
    def shape(self) -> Shape:
        """
        What a client sees of the keys.
        """
        return Shape(self.iterations, len(self.salt))

    @classmethod
    def fake(
        cls, username: bytes, secret: bytes, shapes: Collection[Shape] = (_SHAPE,)
    ) -> ScramKeys:
        """
        Make keys for a user that does not exist.  No password fits them.

        @param secret: makes the same name get the same salt each time, as that of a user is.
        @param shapes: those of the users that exist.  Each name gets one of them, and keeps it
            when others are added, unless it is one of those.
        """
        iterations, size = max(
            shapes, key=lambda shape: _digest(secret, b"%d %d " % shape + username)
        )
        salt = b"".join(_digest(secret, bytes([n]) + username) for n in range(size // 32 + 1))
        return cls(salt[:size], iterations, os.urandom(32), os.urandom(32))

    def matches(self, password: str) -> bool:
        """
        This takes as long as L{fromPassword}.

        @return: whether this is the password.
        """
        try:
            keys = self.fromPassword(password, self.salt, self.iterations)
        except ValueError:
            return False
        return hmac.compare_digest(keys.stored, self.stored)


def _digest(secret: bytes, data: bytes) -> bytes:
    return hmac.digest(secret, data, "sha256")


def _hash(username: bytes, password: bytes | None) -> ScramKeys:
    """
    @param password: the user's; C{None} for a user that does not exist, for whom it takes as long.
    """
    salt = _digest(_SECRET, username)[:_SALT_SIZE]
    if password is not None:
        try:
            return ScramKeys.fromPassword(password.decode("utf-8"), salt)
        except ValueError:
            pass
    return attrs.evolve(ScramKeys.fromPassword("unknown", salt), stored=os.urandom(32))


def _explain(error: ScramException) -> str:
    wrong = error.server_error is not None and error.server_error.value == "invalid-proof"
    return WRONG if wrong else f"malformed message: {error}"


class IScramCredentials(Interface):
    """
    A user name, and a client that can prove that it knows the password.
    """

    username: bytes = Attribute("The name the client gave, as SASLprep leaves it, in UTF-8.")

    def challenge(keys: ScramKeys) -> Deferred[bool]:
        """
        Ask for the proof.  A checker that does not know the name asks all the same, with
        L{ScramKeys.fake}, so that it looks as if only the password were wrong.

        @return: fires with whether the proof was right.
        """


@implementer(IScramCredentials, IUsernameHashedPassword)
class _Proof:
    """
    The credentials that a checker is given.

    @ivar username: the name the client gave.
    @ivar keys: fires with the keys to challenge the client with.
    """

    def __init__(self, username: bytes) -> None:
        self.username = username
        self.keys: Deferred[ScramKeys] = Deferred()
        self._result: Deferred[bool] = Deferred()
        self._hashing: Deferred[Any] | None = None

    def challenge(self, keys: ScramKeys) -> Deferred[bool]:
        """
        Only the first challenge counts.
        """
        if not self.keys.called:
            self.keys.callback(keys)
        return self._result

    def checkPassword(self, password: bytes) -> Deferred[bool]:
        """
        Challenge the client with the keys of a password, for checkers that have the password.
        """
        self._hashing = offReactor(_hash, self.username, password)
        return self._hashing.addCallback(self.challenge)

    def loginEnded(self, result: object) -> object:
        """
        The checker is done.  If it asked for no proof, it does not know the name; the client is
        challenged all the same.
        """
        pending = self._hashing is not None and not self._hashing.called
        if not self.keys.called and not pending:
            self._hashing = offReactor(_hash, self.username, None)
            self._hashing.addCallback(self.challenge).addErrback(Failure.trap, CancelledError)
        return result

    def settle(self, *, proven: bool) -> None:
        """
        Tell the checker whether the client has proved that it knows the password.
        """
        if self._hashing is not None and not self._hashing.called:
            self._hashing.cancel()
        if not self._result.called:
            self._result.callback(proven)


class ScramSHA256:
    """
    One attempt to log in.
    """

    name: ClassVar[str] = "SCRAM-SHA-256"
    _log: ClassVar[Logger] = Logger(observer=BOUNDS)

    def __init__(self, portal: Portal, admit: Admit) -> None:
        self._portal = portal
        self._admit = admit
        self._proof: _Proof | None = None
        self._user: str | None = None

    async def respond(self, data: bytes | None) -> Answer:
        """
        Challenge the client by the name in its first message, and check the proof in its second.

        @raise SASLFailed: if the client is not who it says.
        """
        if data is None:
            return Answer(b"", None)
        if len(data) > _MESSAGE_MAX:
            raise SASLFailed(f"a message of {len(data):,} bytes", self._user)
        try:
            message = data.decode("utf-8")
            if self._proof is None:
                return await self._challenge(message)
            return await self._check(self._proof, message)
        except UnicodeDecodeError:
            raise SASLFailed("malformed message", self._user) from None
        except ScramException as error:
            raise SASLFailed(_explain(error), self._user) from None

    def abandon(self) -> None:
        """
        Tell the checker that there is no proof.
        """
        if self._proof is not None:
            self._proof.settle(proven=False)

    async def _challenge(self, message: str) -> Answer:
        name = self._user = _nameIn(message)
        await self._admit(name)
        proof = self._proof = _Proof(name.encode())
        self._login: Deferred[Any] = self._portal.login(proof, None, IUser)
        self._login.addBoth(proof.loginEnded).addErrback(self._notLetIn)
        keys = await proof.keys
        found = keys.salt, keys.stored, keys.server, keys.iterations
        # scramp reads the name again.  Keys are for the name that the checker was asked about.
        self._server = _MECHANISM.make_server(lambda again: found if again == name else None)
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
        Log that a checker is broken; the client is told the same as if its password were wrong.
        """
        if failure.check(LoginFailed, CancelledError) is None:
            self._log.failure("a credentials checker failed", failure)


def _nameIn(message: str) -> str:
    """
    @param message: a client's first.
    @return: the user name, as SASLprep leaves it.
    @raise SASLFailed: if there is none.
    """
    match = _CLIENT_FIRST.match(message)
    if match is None:
        raise SASLFailed("malformed message")
    name = match[1].replace("=2C", ",").replace("=3D", "=")
    try:
        return prepareName(name.encode())
    except ValueError as error:
        raise SASLFailed(f"this cannot be a user name: {error}") from None
