"""
SASL as a client, without I/O: PLAIN, and SCRAM-SHA-256 where scramp is installed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import attrs

from kaproto.errors import AuthenticationFailed, RemoteError
from kaproto.wire.programs import AuthType, ErrorCode, Procedure
from kaproto.wire.sasl import (
    SASLResult,
    packStart,
    packStep,
    unpackMechanisms,
    unpackResult,
)

__all__ = ["ITERATIONS_MAX", "Login", "authenticate", "chooseMechanism"]

ITERATIONS_MAX: Final = 1_000_000
"""
How often SCRAM may hash a password: that takes a quarter of a second.
"""

_STEPS_MAX: Final = 8


@attrs.frozen
class Login:
    """
    What a client authenticates with.

    @ivar user: the name.
    @ivar password: the password, which is never shown.
    @ivar mechanism: the SASL mechanism to use, C{None} for the strongest that both ends have.
    """

    user: str
    password: str = attrs.field(repr=False)
    mechanism: str | None = None


class _Mechanism(Protocol):
    def first(self) -> bytes:
        """
        @return: what to begin with.
        """

    def next(self, data: bytes) -> bytes:
        """
        @return: the answer to what the server said.
        @raise AuthenticationFailed: when the server is not who it should be.
        """

    def check(self, data: bytes | None) -> None:
        """
        The server lets this client in.

        @param data: the last that it said.
        @raise AuthenticationFailed: when it is not who it should be.
        """


class _Plain:
    def __init__(self, login: Login) -> None:
        self._login = login

    def first(self) -> bytes:
        """
        @return: name and password as they are (RFC 4616).
        """
        if "\0" in self._login.user + self._login.password:
            raise AuthenticationFailed("a name or a password cannot have a NUL in it")
        return f"\0{self._login.user}\0{self._login.password}".encode()

    def next(self, data: bytes) -> bytes:
        """
        @raise AuthenticationFailed: always, since nothing is left to be said.
        """
        raise AuthenticationFailed("the server wants more than PLAIN has to say")

    def check(self, data: bytes | None) -> None:
        """
        There is nothing to check.
        """


class _Scram:
    def __init__(self, login: Login) -> None:
        from scramp import ScramClient, ScramException

        self._error = ScramException
        try:
            self._client = ScramClient(["SCRAM-SHA-256"], login.user, login.password)
        except ScramException as error:
            raise AuthenticationFailed(f"no name or password can be that: {error}") from None
        self._answered = self._proven = False

    def first(self) -> bytes:
        """
        @return: the name.
        """
        message: str = self._client.get_client_first()
        return message.encode()

    def next(self, data: bytes) -> bytes:
        """
        @return: the proof, or nothing once the server has given its own.
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
                    f"the server wants the password hashed {iterations} times, and more than "
                    f"{ITERATIONS_MAX} times is no good sign"
                )
            message: str = self._client.get_client_final()
        except self._error as error:
            raise AuthenticationFailed(f"the server's part of SCRAM is wrong: {error}") from None
        return message.encode()

    def check(self, data: bytes | None) -> None:
        """
        Check the server's own proof that it knows the password.
        """
        if self._proven:
            return
        try:
            self._client.set_server_final((data or b"").decode("utf-8", "replace"))
        except self._error as error:
            raise AuthenticationFailed(
                f"the server does not prove that it knows the password, so it is not the one it "
                f"should be: {error}"
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
    @param offered: what the server has.
    @param wanted: the one to use, C{None} for any.
    @param secure: whether nobody can listen, so that the password may be sent as it is.
    @raise AuthenticationFailed: when there is none that both ends have; the message says what
        each has.
    """
    own = [name for name in _available() if secure or name != "PLAIN"]
    usable = [name for name in own if name in offered and wanted in (None, name)]
    if not usable:
        insecure = "" if secure else ", PLAIN only over TLS or a UNIX socket"
        raise AuthenticationFailed(
            f"no SASL mechanism in common: the server has {', '.join(offered) or 'none'}, this "
            f"client {', '.join(own) or 'none'}{insecure}"
            + (f", and {wanted} is wanted" if wanted is not None else "")
        )
    return usable[0]


async def authenticate(
    call: Callable[[int, bytes], Awaitable[bytes]],
    types: list[int],
    login: Login,
    *,
    secure: bool,
) -> None:
    """
    Authenticate by SASL.

    @param call: calls a procedure of the remote program.
    @param types: the L{AuthType}s that the server takes.
    @param login: name and password.
    @param secure: see L{chooseMechanism}.
    @raise AuthenticationFailed: when the server refuses, wants something else or is not who it
        should be.
    @raise kaproto.wire.xdr.XDRError: when the server's answer cannot be decoded.
    """
    if AuthType.SASL not in types:
        raise AuthenticationFailed(f"the server wants authentication by {_names(types)}, not SASL")
    try:
        offered = unpackMechanisms(await call(Procedure.AUTH_SASL_INIT, b""))
        name = chooseMechanism(offered, login.mechanism, secure=secure)
        await _exchange(call, name, _available()[name](login))
    except RemoteError as error:
        if error.code != ErrorCode.AUTH_FAILED:
            raise
        raise AuthenticationFailed(
            f"the server does not let {login.user!r} in: the name or the password is wrong"
        ) from error


def _names(types: list[int]) -> str:
    known = list(AuthType)
    return ", ".join(AuthType(each).name.lower() if each in known else str(each) for each in types)


async def _exchange(
    call: Callable[[int, bytes], Awaitable[bytes]], name: str, mechanism: _Mechanism
) -> None:
    payload = await call(Procedure.AUTH_SASL_START, packStart(name, mechanism.first()))
    for _step in range(_STEPS_MAX):
        result: SASLResult = unpackResult(payload)
        if result.complete:
            mechanism.check(result.data)
            return
        answer = mechanism.next(result.data or b"")
        payload = await call(Procedure.AUTH_SASL_STEP, packStep(answer))
    raise AuthenticationFailed(f"the server has not come to an end after {_STEPS_MAX} steps")
