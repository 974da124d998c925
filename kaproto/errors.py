"""
What can go wrong, and whose fault it was.

L{LocalProtocolError} is our own mistake, L{RemoteProtocolError} the peer's.  L{RemoteError} is
neither: the peer understood the call and answered that it failed.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationFailed",
    "ConnectionClosed",
    "DeadlineMissed",
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
    @return: the text with everything escaped that no log file takes, or no terminal should be
        given: bytes that are not UTF-8, and control characters but for line ends and tabs.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode()
        for each in text
    )


class KaprotoError(Exception):
    """
    The root of every error that kaproto raises on its own account.

    What C{str} makes of it can be logged and shown, even where it quotes the peer.
    """

    def __str__(self) -> str:
        return _printable(super().__str__())


class ProtocolError(KaprotoError):
    """
    Somebody broke the protocol.  Only the two subclasses, which say who, are raised.
    """

    def __init__(self, message: str) -> None:
        if type(self) is ProtocolError:
            raise TypeError(
                "raise LocalProtocolError or RemoteProtocolError: say whose fault it is"
            )
        super().__init__(message)


class LocalProtocolError(ProtocolError):
    """
    This side tried something that the protocol forbids, such as calling before the connection
    is open or sending a message that is too large.
    """


class RemoteProtocolError(ProtocolError):
    """
    The peer sent something that the protocol forbids; the message names what it was.
    """


class PeerFlooded(RemoteProtocolError):
    """
    The peer went over one of its budgets: too many pings, or replies that it does not read.
    """


class DeadlineMissed(RemoteProtocolError):
    """
    The peer did not do in time what the protocol expected of it.

    @ivar seconds: how long it was given, in seconds.
    """

    def __init__(self, expected: str, seconds: float, setting: str | None = None) -> None:
        """
        @param setting: the name of kaserver's setting for it, such as C{auth-timeout}.
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
    @ivar silence: seconds since the last byte was heard from the peer.
    """

    def __init__(self, interval: float, count: int, silence: float) -> None:
        super().__init__(
            f"connection closed due to keepalive timeout: nothing heard for {silence:.2f} s and "
            f"{count} pings unanswered (interval {interval:g} s, count {count})"
        )
        self.interval = interval
        self.count = count
        self.silence = silence


class KeepAliveUnsupported(KaprotoError):
    """
    The server answered 0, or an error, when asked for the keepalive feature, so it may not be
    pinged.
    """


class ConnectionClosed(KaprotoError):
    """
    The connection is over in good order, by C{close()} or because the far end said so.

    @ivar reason: libvirt's C{virConnectCloseReason} where the far end gave one: 0 error, 1 end
        of file, 2 keepalive timeout, 3 closed by the client.
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
    The two ends share no way to authenticate, or the credentials were refused.
    """


class RemoteError(KaprotoError):
    """
    The far end answered a call with an error (libvirt's C{remote_error}).

    @ivar code: a C{virErrorNumber}, see L{kaproto.wire.programs.ErrorCode}.
    @ivar domain: a C{virErrorDomain}, see L{kaproto.wire.programs.ErrorDomain}.
    @ivar level: 0 none, 1 warning, 2 error.
    @ivar message: the text for the user, as the far end wrote it.
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
    The server had too many clients, and this one was not open yet, or not even known.
    """


class UpstreamLost(KaprotoError):
    """
    The connection to libvirtd is gone, and with it the client's.
    """
