"""
The mechanism SCRAM-SHA-256 (RFC 5802, RFC 7677) for a server.  The password never crosses the
wire, and each end proves to the other that it knows it.

scramp, which the extra C{scram} installs, reads and writes the messages.  This module connects it
with L{twisted.cred}.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

from scramp import ScramException
from twisted.cred.credentials import IUsernameHashedPassword
from twisted.cred.error import LoginFailed
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from kaproto.logbounds import BOUNDS
from kaproto.security.hashing import offReactor
from kaproto.security.mechanism import WRONG, Admit, Answer, IKnown, SASLFailed
from kaproto.security.saslprep import prepareName
from kaproto.security.scramkeys import MECHANISM, ScramKeys, hashPassword
from kaproto.security.users import IUser

__all__ = ["IScramCredentials", "ScramSHA256"]

_MESSAGE_MAX: Final = 2048
_CLIENT_FIRST: Final = re.compile(r"[^,]*,[^,]*,n=([^,]+),")
"""
The beginning of a client's first message, such as C{n,,n=alice,r=NONCE}.
"""


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
        Ask for the proof.  A checker must ask for unknown names too, with L{ScramKeys.fake}, so
        that the client cannot tell them from known ones.

        @return: fires with whether the proof was right.
        """


@implementer(IScramCredentials, IUsernameHashedPassword, IKnown)
class _Proof:
    """
    The credentials given to a checker.

    @ivar username: the name the client gave.
    @ivar known: whether the user has recently logged in from the same network.
    @ivar keys: fires with the keys for the challenge.
    """

    def __init__(self, username: bytes, *, known: bool) -> None:
        self.username = username
        self.known = known
        self.keys: Deferred[ScramKeys] = Deferred()
        self._result: Deferred[bool] = Deferred()
        self._hashing: Deferred[Any] | None = None

    def challenge(self, keys: ScramKeys) -> Deferred[bool]:
        """
        Challenge the client.  Only the first call has an effect.
        """
        if not self.keys.called:
            self.keys.callback(keys)
        return self._result

    def checkPassword(self, password: bytes) -> Deferred[bool]:
        """
        Challenge the client with the keys of a password, for checkers that have the password.
        """
        return self._hash(password).addCallback(self.challenge)

    def _hash(self, password: bytes | None) -> Deferred[ScramKeys]:
        self._hashing = offReactor(hashPassword, self.username, password, stranger=not self.known)
        return self._hashing

    def loginEnded(self, result: object) -> object:
        """
        The checker is done.  If it did not challenge the client, it does not know the name, so
        challenge the client with fake keys.
        """
        pending = self._hashing is not None and not self._hashing.called
        if not self.keys.called and not pending:
            hashing = self._hash(None).addCallback(self.challenge)
            hashing.addErrback(Failure.trap, CancelledError)
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

        @raise SASLFailed: if the client is not authenticated.
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
        known = await self._admit(name)
        proof = self._proof = _Proof(name.encode(), known=known)
        self._login: Deferred[Any] = self._portal.login(proof, None, IUser)
        self._login.addBoth(proof.loginEnded).addErrback(self._notLetIn)
        keys = await proof.keys
        found = keys.salt, keys.stored, keys.server, keys.iterations
        # scramp parses the name again, but the keys belong to the name given to the checker.
        self._server = MECHANISM.make_server(lambda again: found if again == name else None)
        self._server.set_client_first(message)
        first: str = self._server.get_server_first()
        return Answer(first.encode(), None)

    async def _check(self, proof: _Proof, message: str) -> Answer:
        self._server.set_client_final(message)
        proof.settle(proven=True)
        result = await self._login
        if result is None:
            raise SASLFailed("refused by the portal", self._user)
        final: str = self._server.get_server_final()
        return Answer(final.encode(), str(IUser(result[1]).name))

    def _notLetIn(self, failure: Failure) -> None:
        """
        Log that a checker raised an error.  The client gets the same reply as for a wrong password.
        """
        if failure.check(LoginFailed, CancelledError) is None:
            self._log.failure("a credentials checker failed", failure)


def _nameIn(message: str) -> str:
    """
    @param message: a client's first message.
    @return: the user name, in the form of SASLprep.
    @raise SASLFailed: if the message has no valid user name.
    """
    match = _CLIENT_FIRST.match(message)
    if match is None:
        raise SASLFailed("malformed message")
    name = match[1].replace("=2C", ",").replace("=3D", "=")
    try:
        return prepareName(name.encode())
    except ValueError as error:
        raise SASLFailed(f"this cannot be a user name: {error}") from None
