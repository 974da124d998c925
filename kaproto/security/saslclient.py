"""
SASL (RFC 4422) for a client, without I/O: PLAIN, and SCRAM-SHA-256 if scramp is installed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import attrs

from kaproto.errors import AuthenticationFailed, RemoteError
from kaproto.wire.programs import AuthType, ErrorCode, Procedure
from kaproto.wire.sasl import (
    SASL_DATA_MAX,
    SASLResult,
    packStart,
    packStep,
    unpackMechanisms,
    unpackResult,
)

__all__ = ["ITERATIONS_MAX", "Compute", "Login", "authenticate", "chooseMechanism", "computeAtOnce"]

ITERATIONS_MAX: Final = 1_000_000
"""
The most iterations of SCRAM's hash that a server may ask for.  They take about a quarter of a
second.
"""

_STEPS_MAX: Final = 8


@attrs.frozen
class Login:
    """
    A user name and a password.

    @ivar user: the name.
    @ivar password: the password.  C{repr} does not show it.
    @ivar mechanism: the SASL mechanism to use; C{None} for the strongest that both ends have.
    """

    user: str
    password: str = attrs.field(repr=False)
    mechanism: str | None = None


class _Mechanism(Protocol):
    def first(self) -> bytes:
        """
        @return: the first message.
        @raise AuthenticationFailed: if the mechanism cannot carry this login.
        """

    def next(self, data: bytes) -> bytes:
        """
        @return: the reply to the server's message.
        @raise AuthenticationFailed: if the server does not know the password.
        """

    def check(self, data: bytes | None) -> None:
        """
        Check the last message of the server, which accepts the login.

        @param data: the message; C{None} if the server sent none.
        @raise AuthenticationFailed: if the server does not know the password.
        """


class _Plain:
    def __init__(self, login: Login) -> None:
        self._login = login

    def first(self) -> bytes:
        """
        @return: name and password in clear (RFC 4616).
        """
        if "\0" in self._login.user + self._login.password:
            raise AuthenticationFailed("a user name or password cannot have a NUL in it")
        message = f"\0{self._login.user}\0{self._login.password}".encode()
        if len(message) > SASL_DATA_MAX:
            raise AuthenticationFailed(
                f"user name and password have {len(message) - 2:,} bytes; libvirt's RPC carries "
                f"{SASL_DATA_MAX - 2:,} at most, and kaserver accepts 255 and 1,024"
            )
        return message

    def next(self, data: bytes) -> bytes:
        """
        @raise AuthenticationFailed: always, since PLAIN has only one message.
        """
        raise AuthenticationFailed("the server asks for a second message, but PLAIN has only one")

    def check(self, data: bytes | None) -> None:
        """
        Do nothing: with PLAIN the server proves nothing to the client.
        """


class _Scram:
    def __init__(self, login: Login) -> None:
        from scramp import ScramClient, ScramException

        self._error = ScramException
        try:
            self._client = ScramClient(["SCRAM-SHA-256"], login.user, login.password)
        except ScramException:
            raise AuthenticationFailed(
                "the user name or password is empty or has characters that SASLprep (RFC 4013) "
                "forbids"
            ) from None
        self._answered = self._proven = False

    def first(self) -> bytes:
        """
        @return: the message with the user name.
        """
        message: str = self._client.get_client_first()
        return message.encode()

    def next(self, data: bytes) -> bytes:
        """
        @return: the message with the client's proof; after the server's proof, an empty one.
        """
        if self._answered:
            self.check(data)
            return b""
        self._answered = True
        try:
            self._client.set_server_first(data.decode("utf-8", "replace"))
            iterations = int(self._client.iterations)
            if iterations > ITERATIONS_MAX:
                raise AuthenticationFailed(
                    f"the server asks to hash the password {iterations:,} times, and this client "
                    f"does so at most {ITERATIONS_MAX:,} times; it may not be the right server"
                )
            message: str = self._client.get_client_final()
        except self._error as error:
            raise AuthenticationFailed(f"the server's SCRAM message is wrong: {error}") from None
        return message.encode()

    def check(self, data: bytes | None) -> None:
        """
        Check the server's proof that it knows the password.
        """
        if self._proven:
            return
        try:
            self._client.set_server_final((data or b"").decode("utf-8", "replace"))
        except self._error as error:
            raise AuthenticationFailed(
                f"the server does not prove that it knows the password, so it is not the right "
                f"server: {error}"
            ) from None
        self._proven = True


def _available() -> dict[str, Callable[[Login], _Mechanism]]:
    """
    @return: the mechanisms, by name, the strongest first.
    """
    mechanisms: dict[str, Callable[[Login], _Mechanism]] = {
        "SCRAM-SHA-256": _Scram,
        "PLAIN": _Plain,
    }
    try:
        import scramp  # noqa: F401
    except ImportError:
        del mechanisms["SCRAM-SHA-256"]
    return mechanisms


def chooseMechanism(offered: list[str], wanted: str | None, *, secure: bool) -> str:
    """
    @param offered: the server's mechanisms.
    @param wanted: the mechanism to use; C{None} for the strongest that both ends have.
    @param secure: whether the connection is encrypted or local, so that the password may be sent
        in clear.
    @raise AuthenticationFailed: if no mechanism can be used.  The message lists the mechanisms of
        each end, and says what to do.
    """
    available = list(_available())
    own = [name for name in available if secure or name != "PLAIN"]
    usable = [name for name in own if name in offered and wanted in (None, name)]
    if usable:
        return usable[0]
    raise AuthenticationFailed(
        f"no SASL mechanism in common: the server offers {', '.join(offered) or 'none'}, this "
        f"client has {', '.join(available)}"
        + ("" if wanted is None else f", and the URI or the login requires {wanted}")
        + (_ADVICE_SECURE if secure else _ADVICE_INSECURE)
    )


_ADVICE_SECURE: Final = (
    "; let the server offer SCRAM-SHA-256 or PLAIN, for libvirtd with mech_list in "
    "/etc/sasl2/libvirt.conf"
)

_ADVICE_INSECURE: Final = (
    ", PLAIN only over TLS or a UNIX socket; over plain TCP libvirtd offers only mechanisms that "
    "encrypt (DIGEST-MD5, GSSAPI), which kaproto does not have: connect by TLS (qemu+tls://) or "
    "to its UNIX socket"
)


Compute = Callable[[Callable[[bytes], bytes], bytes], Awaitable[bytes]]
"""
Calls a slow function with an argument, perhaps in a thread.
"""


async def computeAtOnce(function: Callable[[bytes], bytes], argument: bytes) -> bytes:
    """
    Call the function in this thread.
    """
    return function(argument)


async def authenticate(
    call: Callable[[int, bytes], Awaitable[bytes]],
    types: list[int],
    login: Login,
    *,
    secure: bool,
    compute: Compute = computeAtOnce,
) -> None:
    """
    Authenticate by SASL.

    @param call: calls a procedure of the remote program.
    @param types: the L{AuthType}s that the server accepts.
    @param login: name and password.
    @param secure: see L{chooseMechanism}.
    @param compute: calls the function that hashes the password, which is slow if the server asks
        for many iterations.
    @raise AuthenticationFailed: if the server refuses, does not accept SASL, or does not know the
        password.
    @raise kaproto.wire.xdr.XDRError: if the server's answer cannot be decoded.
    """
    if AuthType.SASL not in types:
        raise AuthenticationFailed(f"the server wants authentication by {_names(types)}, not SASL")
    try:
        offered = unpackMechanisms(await call(Procedure.AUTH_SASL_INIT, b""))
        name = chooseMechanism(offered, login.mechanism, secure=secure)
        await _exchange(call, name, _available()[name](login), compute)
    except RemoteError as error:
        if error.code != ErrorCode.AUTH_FAILED:
            raise
        raise AuthenticationFailed(
            f"the server refuses {login.user!r}: the user name or the password is wrong"
        ) from error


def _names(types: list[int]) -> str:
    known = list(AuthType)
    return ", ".join(AuthType(each).name.lower() if each in known else str(each) for each in types)


async def _exchange(
    call: Callable[[int, bytes], Awaitable[bytes]],
    name: str,
    mechanism: _Mechanism,
    compute: Compute,
) -> None:
    payload = await call(Procedure.AUTH_SASL_START, packStart(name, mechanism.first()))
    for _step in range(_STEPS_MAX):
        result: SASLResult = unpackResult(payload)
        if result.complete:
            mechanism.check(result.data)
            return
        answer = await compute(mechanism.next, result.data or b"")
        payload = await call(Procedure.AUTH_SASL_STEP, packStep(answer))
    raise AuthenticationFailed(f"the login is not complete after {_STEPS_MAX} steps")
