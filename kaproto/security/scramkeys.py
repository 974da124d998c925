"""
The keys that a server stores in place of a password, for SCRAM-SHA-256 (RFC 5802).
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from collections.abc import Collection
from hashlib import sha256
from typing import Final, NamedTuple

import attrs
from scramp import ScramMechanism

from kaproto.security.saslclient import ITERATIONS_MAX
from kaproto.security.saslprep import preparePassword

__all__ = ["ITERATIONS", "MECHANISM", "ScramKeys", "Shape", "hashPassword"]

MECHANISM: Final = ScramMechanism("SCRAM-SHA-256")
"""
scramp's object for the mechanism.
"""

ITERATIONS: Final = 4096
"""
The default number of iterations of the hash, the lowest that RFC 7677 allows.
"""

_SALT_SIZE: Final = 16
_SALT_MIN: Final = 12
_SALT_MAX: Final = 128

_SECRET: Final = os.urandom(32)

_FORM: Final = re.compile(
    r"SCRAM-SHA-256\$([1-9][0-9]{3,6}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)"
)


class Shape(NamedTuple):
    """
    The properties of a user's keys that a client sees, besides the salt.

    @ivar iterations: iterations of the hash.
    @ivar saltSize: the length of the salt, in bytes.
    """

    iterations: int
    saltSize: int


_SHAPE: Final = Shape(ITERATIONS, _SALT_SIZE)


@attrs.frozen
class ScramKeys:
    """
    The keys of one user: enough to check a password, not enough to log in with.

    @ivar salt: the salt of the hash.
    @ivar iterations: iterations of the hash.
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
        Hash a password.  This takes about a millisecond for 4,096 iterations, 0.14 s for 600,000;
        see L{offReactor}.

        @param salt: by default random.
        @raise ValueError: if the password is not valid.
        """
        if salt is None:
            salt = os.urandom(_SALT_SIZE)
        try:
            prepared = preparePassword(password.encode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise ValueError(f"this cannot be a password: {error}") from None
        salt, stored, server, count = MECHANISM.make_auth_info(prepared, iterations, salt)
        return cls(salt, count, stored, server)

    @classmethod
    def fromText(cls, text: str) -> ScramKeys:
        """
        Read keys in PostgreSQL's form.

        @param text: C{SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER}, the last three in base64.
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
        @return: the text that L{fromText} reads.
        """
        salt, stored, server = (
            base64.b64encode(each).decode() for each in (self.salt, self.stored, self.server)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    @property
    def shape(self) -> Shape:
        """
        Return the properties that a client sees.
        """
        return Shape(self.iterations, len(self.salt))

    @classmethod
    def fake(
        cls, username: bytes, secret: bytes, shapes: Collection[Shape] = (_SHAPE,)
    ) -> ScramKeys:
        """
        Make keys for a user that does not exist.  They match no password.

        @param secret: hashed with the name to make the salt, so that a name always has the same
            salt, as a real user does.
        @param shapes: the shapes of the users that exist.  Each name gets one of them.  When a
            shape is added, a name keeps its own or gets the new one (rendezvous hashing).
        """
        iterations, size = max(
            shapes, key=lambda shape: _digest(secret, b"%d %d " % shape + username)
        )
        salt = b"".join(_digest(secret, bytes([n]) + username) for n in range(size // 32 + 1))
        return cls(salt[:size], iterations, os.urandom(32), os.urandom(32))

    def matches(self, password: str) -> bool:
        """
        Check a password.  This takes as long as L{fromPassword}.

        @return: whether this is the password.
        """
        try:
            keys = self.fromPassword(password, self.salt, self.iterations)
        except ValueError:
            return False
        return hmac.compare_digest(keys.stored, self.stored)


def _digest(secret: bytes, data: bytes) -> bytes:
    return hmac.digest(secret, data, "sha256")


def hashPassword(username: bytes, password: bytes | None) -> ScramKeys:
    """
    Make keys for a checker that has the password in clear.  A name always gets the same salt.

    @param password: the user's password; C{None} for a user that does not exist, which takes the
        same time.
    """
    salt = _digest(_SECRET, username)[:_SALT_SIZE]
    if password is not None:
        try:
            return ScramKeys.fromPassword(password.decode("utf-8"), salt)
        except ValueError:
            pass
    return attrs.evolve(ScramKeys.fromPassword("unknown", salt), stored=os.urandom(32))
