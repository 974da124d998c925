"""
Explains to a client why its connection has ended.
"""

from __future__ import annotations

from typing import Final

from OpenSSL.SSL import Error as SSLError
from twisted.internet.error import ConnectionLost

from kaproto.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    KaprotoError,
    RemoteProtocolError,
)
from kaproto.security.handshake import explainTLS
from kaproto.wire.programs import CloseReason
from kaproto.wire.xdr import Unpacker

__all__ = ["announced", "explained"]

_WHY: Final = {
    CloseReason.ERROR: "an error",
    CloseReason.EOF: "end of file",
    CloseReason.KEEPALIVE: "a keepalive timeout",
    CloseReason.CLIENT: "the client's own request",
}


def announced(payload: bytes) -> ConnectionClosed:
    """
    @param payload: the payload of C{CONNECT_EVENT_CONNECTION_CLOSED}.
    @return: the server's reason for closing.
    @raise XDRError: when it cannot be decoded.
    """
    number = Unpacker(payload).int32()
    why = _WHY[CloseReason(number)] if number in list(CloseReason) else f"reason {number}"
    return ConnectionClosed(f"the server closed the connection because of {why}", number)


def explained(
    reason: Exception, told: ConnectionClosed | None, *, handshakeDone: bool
) -> Exception:
    """
    @param reason: the transport's reason, or why this client closed.
    @param told: the server's reason, if it sent one.
    @param handshakeDone: whether the TLS handshake is done but the server has not confirmed yet
        that it accepts this client.
    @return: the reason for the application.
    """
    if isinstance(reason, ConnectionClosed | ConnectionLost):
        if told is not None:
            return told
        if handshakeDone:
            return AuthenticationFailed(
                "the server closed the connection instead of accepting this client: it requires a "
                "certificate that it trusts (pkipath= in the URI names its folder)"
            )
    if isinstance(reason, SSLError) and not isinstance(reason, KaprotoError):
        return RemoteProtocolError(f"TLS failed: {explainTLS(reason)}")
    return reason
