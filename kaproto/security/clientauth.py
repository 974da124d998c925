"""
Authentication as a client, without I/O: by SASL with a login, or by polkit without one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from kaproto.errors import AuthenticationFailed, RemoteError
from kaproto.security import saslclient
from kaproto.security.saslclient import Compute, Login, computeAtOnce
from kaproto.wire.programs import AuthType, ErrorCode, Procedure
from kaproto.wire.xdr import Unpacker

__all__ = ["Authentication"]


@attrs.frozen
class Authentication:
    """
    How a client authenticates.

    @ivar login: the user's name and password, or a function that returns them, called when the
        server wants a login; C{None} if there are none.
    @ivar wanted: the kind of authentication to use, even if the server requires none; C{None} to
        authenticate only if the server requires it.
    """

    login: Login | Callable[[], Login] | None = None
    wanted: AuthType | None = None

    async def run(
        self,
        call: Callable[[int, bytes], Awaitable[bytes]],
        offered: list[int],
        *,
        secure: bool,
        compute: Compute = computeAtOnce,
    ) -> None:
        """
        Authenticate, if the server requires it or C{wanted} is set.

        @param call: calls a procedure of the remote program.
        @param offered: the L{AuthType}s that the server accepts; it requires no authentication if
            there are none, or if L{AuthType.NONE} is among them.
        @param secure: whether the connection is encrypted or local.
        @param compute: calls the function that hashes the password, perhaps in a thread.
        @raise AuthenticationFailed: when the server does not offer the wanted kind, requires a
            kind that this client does not have, or refuses the login.
        @raise ValueError: when the login cannot be found.
        @raise kaproto.wire.xdr.XDRError: when the server's answer cannot be decoded.
        """
        if self.wanted is not None and self.wanted not in offered:
            raise AuthenticationFailed(
                f"{_names([self.wanted])} was asked for (auth= in a URI), and the server offers "
                f"{_names(offered) or 'no authentication'}"
            )
        way = self._choose(offered)
        if way == AuthType.POLKIT:
            await _askPolkit(call)
        elif way == AuthType.SASL and self.login is not None:
            login = self.login() if callable(self.login) else self.login
            await saslclient.authenticate(
                call, [AuthType.SASL], login, secure=secure, compute=compute
            )
        elif way != AuthType.NONE:
            raise AuthenticationFailed(
                f"the server wants authentication by {_names(offered)}, and none was given"
            )

    def _choose(self, offered: list[int]) -> int:
        if self.wanted is not None:
            return self.wanted
        if not offered or AuthType.NONE in offered:
            return AuthType.NONE
        if self.login is not None and AuthType.SASL in offered:
            return AuthType.SASL
        return AuthType.POLKIT if AuthType.POLKIT in offered else offered[0]


async def _askPolkit(call: Callable[[int, bytes], Awaitable[bytes]]) -> None:
    try:
        complete = Unpacker(await call(Procedure.AUTH_POLKIT, b"")).int32()
    except RemoteError as error:
        if error.code not in _POLKIT_REFUSALS:
            raise
        raise AuthenticationFailed(
            f"polkit on the server's host refuses this user: {error.message}"
        ) from error
    if not complete:
        raise AuthenticationFailed("polkit on the server's host made no decision")


_POLKIT_REFUSALS = (ErrorCode.AUTH_FAILED, ErrorCode.AUTH_CANCELLED, ErrorCode.AUTH_UNAVAILABLE)


def _names(types: list[int]) -> str:
    known = list(AuthType)
    return ", ".join(AuthType(each).name.lower() if each in known else str(each) for each in types)
