"""
The exceptions, with separate classes for errors of this side and of the peer.

L{LocalProtocolError} is a mistake of this side, L{RemoteProtocolError} one of the peer.
L{RemoteError} is neither: the peer understood the call and replied that it failed.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationFailed",
    "ConnectionClosed",
    "DeadlineMissed",
    "DeliveryTimeout",
    "Disconnected",
    "KaprotoError",
    "KeepAliveTimeout",
    "KeepAliveUnsupported",
    "LocalProtocolError",
    "PeerFlooded",
    "ProtocolError",
    "RemoteError",
    "RemoteProtocolError",
    "ServerStopping",
    "TooManyClients",
    "UpstreamLost",
]


def _printable(text: str) -> str:
    """
    @return: the text, safe for logs and terminals: bytes that are not UTF-8 and control characters
        other than line ends and tabs are escaped.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode()
        for each in text
    )


class KaprotoError(Exception):
    """
    The base class of kaproto's errors.  The result of C{str} is safe to log and show, even if it
    quotes the peer.
    """

    def __str__(self) -> str:
        return _printable(super().__str__())


class ProtocolError(KaprotoError):
    """
    The base class of the two protocol errors; only the subclasses are raised.
    """

    def __init__(self, message: str) -> None:
        if type(self) is ProtocolError:
            raise TypeError(
                "raise LocalProtocolError or RemoteProtocolError: say whose fault it is"
            )
        super().__init__(message)


class LocalProtocolError(ProtocolError):
    """
    This side did something that the protocol forbids, such as calling before the connection is
    open or sending a message that is too large.
    """


class RemoteProtocolError(ProtocolError):
    """
    The peer sent something that the protocol forbids.  The message says what.
    """


class PeerFlooded(RemoteProtocolError):
    """
    The peer exceeded a limit: it pinged too often, or did not read what was sent to it.
    """


class DeadlineMissed(RemoteProtocolError):
    """
    The peer missed a deadline.

    @ivar seconds: the time that it had, in seconds.
    """

    def __init__(self, expected: str, seconds: float, setting: str | None = None) -> None:
        """
        @param expected: what did not happen in time, as in C{"it did not log in"}.
        @param setting: kaserver's setting for the deadline, such as C{auth-timeout}.
        """
        flag = "" if setting is None else f" (--{setting})"
        super().__init__(f"{expected} within {seconds:g} s{flag}")
        self.seconds = seconds


class KeepAliveTimeout(KaprotoError):
    """
    The peer is dead: it was silent for C{interval * (count + 1)} seconds and left C{count} pings
    unanswered.

    @ivar interval: seconds of silence before each ping.
    @ivar count: how many pings went unanswered.
    @ivar silence: seconds since the last byte arrived from the peer.
    """

    def __init__(self, interval: float, count: int, silence: float) -> None:
        super().__init__(
            f"connection closed due to keepalive timeout: nothing heard for {silence:.2f} s and "
            f"{count} pings unanswered (interval {interval:g} s, count {count})"
        )
        self.interval = interval
        self.count = count
        self.silence = silence


class DeliveryTimeout(KeepAliveTimeout):
    """
    The peer's host is gone: for C{interval * (count + 1)} seconds it acknowledged none of the data
    sent to it.
    """

    def __init__(self, interval: float, count: int, silence: float) -> None:
        super().__init__(interval, count, silence)
        self.args = (
            f"connection closed due to keepalive timeout: the host acknowledged nothing for "
            f"{silence:.2f} s of what was sent to it (interval {interval:g} s, count {count})",
        )


class KeepAliveUnsupported(KaprotoError):
    """
    The server does not have the keepalive feature, so it cannot be pinged.
    """


class ConnectionClosed(KaprotoError):
    """
    The connection was closed cleanly, by C{close()} or by the peer.

    @ivar reason: the peer's reason (libvirt's C{virConnectCloseReason}), if it gave one: 0 error, 1
        end of file, 2 keepalive timeout, 3 closed by the client.
    """

    def __init__(self, message: str, reason: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class Disconnected(ConnectionClosed):
    """
    An administrator disconnected the client.
    """


class ServerStopping(ConnectionClosed):
    """
    The server is shutting down.
    """

    def __init__(self) -> None:
        super().__init__("the server is shutting down", 1)


class AuthenticationFailed(KaprotoError):
    """
    The two ends have no authentication method in common, or the credentials were refused.
    """


class RemoteError(KaprotoError):
    """
    An error in reply to a call (libvirt's C{remote_error}).

    Programs raise it to fail a call, with libvirt's codes, or with their own domain and codes.

    @ivar code: libvirt's codes are C{virErrorNumber}s, see L{kaproto.wire.programs.ErrorCode}.
    @ivar domain: libvirt's are C{virErrorDomain}s, see L{kaproto.wire.programs.ErrorDomain}.
    @ivar level: 0 none, 1 warning, 2 error.
    @ivar message: the text for the user.
    """

    def __init__(self, code: int, domain: int, message: str, level: int = 2) -> None:
        super().__init__(code, domain, message, level)
        self.code = code
        self.domain = domain
        self.message = message
        self.level = level

    def __str__(self) -> str:
        return _printable(
            f"{self.message} (code {self.code}, domain {self.domain}, level {self.level})"
        )


class TooManyClients(KaprotoError):
    """
    The server had too many clients.  This one was the newest, or had not logged in or opened yet.
    """


class UpstreamLost(KaprotoError):
    """
    The gateway closed the client's connection because it lost its own connection to libvirtd.
    """
