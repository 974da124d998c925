"""
Pauses and resumes reading from a peer, and keeps watching it while it is not read.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IPushProducer

from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.rpc.outgoing import Outgoing
from kaproto.rpc.peerpings import PeerPings
from kaproto.transport import StreamTransport
from kaproto.wire.message import PONG

__all__ = ["Pause", "Reading"]


class Pause:
    """
    Why a peer is not read from.  The reasons are bits in plain numbers, because a bulk transfer
    adds and removes one for each full buffer, and an enumeration would add microseconds each time.

    @cvar CALLS: too many of its calls wait.
    @cvar CONGESTION: the other side of a relay does not read this peer's bytes.
    @cvar TURN: more than L{kaproto.wire.message.TURN_MAX} of its messages arrived at once, and
        other peers are served first.
    """

    CALLS: Final = 1
    CONGESTION: Final = 2
    TURN: Final = 4


class Reading:
    """
    Pauses and resumes reading from one peer.

    While a peer is not read, its silence does not count.  A peer that asked for keepalive is still
    pinged, because the kernel reports whether its answers arrive, and gets pongs, because its own
    pings are not read.

    @ivar pauses: the current reasons for not reading: bits of L{Pause}.
    """

    __slots__ = (
        "_direct",
        "_heartbeat",
        "_outgoing",
        "_peerPings",
        "_stopped",
        "_transport",
        "pauses",
    )

    def __init__(
        self,
        transport: StreamTransport,
        heartbeat: Heartbeat,
        outgoing: Outgoing,
        peerPings: PeerPings,
    ) -> None:
        self._transport = transport
        self._direct: IPushProducer | None = None
        self._heartbeat = heartbeat
        self._outgoing = outgoing
        self._peerPings = peerPings
        self._stopped = False
        self.pauses = 0

    def pause(self, reason: int, *, asked: bool = False) -> None:
        """
        Read nothing from the peer until L{resume}, unless this end is closing.

        @param asked: whether the peer asked for keepalive.
        """
        if self._stopped:
            return
        if not self.pauses & ~Pause.TURN:
            self._heartbeat.pause(pingOn=asked, readsOn=asked)
        if not self.pauses:
            (self._direct or self._transport).pauseProducing()
        self.pauses |= reason
        if reason != Pause.TURN:
            self._peerPings.startReassuring(self._reassure, asked=asked)

    def resume(self, reason: int) -> None:
        """
        Remove a reason for not reading; resume reading if it was the last.
        """
        if self.pauses & reason:
            self.pauses &= ~reason
            if not self.pauses & ~Pause.TURN:
                self._peerPings.stopReassuring()
            if not self.pauses:
                self._heartbeat.resume()
                (self._direct or self._transport).resumeProducing()

    def readBy(self, direct: IPushProducer) -> None:
        """
        Let another reader replace the transport, unless this end is closing.

        @param direct: the reader; C{resumeProducing} starts it.
        """
        if self._stopped:
            return
        self._heartbeat.readElsewhere()
        self._direct = direct
        if not self.pauses:
            direct.resumeProducing()

    def stop(self) -> None:
        """
        This end is closing: stop the other reader, if there is one, and send no more pongs.
        """
        self._stopped = True
        self._peerPings.stopReassuring()
        direct, self._direct = self._direct, None
        if direct is not None:
            direct.stopProducing()

    def _reassure(self) -> None:
        # Send nothing more to a peer that is behind with reading.
        if not self._heartbeat.hasToRead() and not self._outgoing.congested:
            self._outgoing.write(PONG)
