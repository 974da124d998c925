"""
The server's end of a tunnel, which distinguishes tunnel clients from plain ones.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final, cast

from twisted.internet.interfaces import IProducer, IProtocolFactory, IReactorTime

from kaproto.interfaces import IKeepAlivePolicy
from kaproto.watch.ends import BEARS, WAIT, ServerFactory, ServerProtocol
from kaproto.watch.tunnel import TunnelProtocol
from kaproto.watch.tunnelmessages import TunnelMessages
from kaproto.watch.tunnelwire import TunnelWire

__all__ = ["PLAIN_WAIT", "tunnelServer"]

PLAIN_WAIT: Final = 1.0
"""
Seconds after which a silent client counts as a plain one, which waits for the server to speak
first.  A tunnel client speaks at once.
"""


class _TunnelServerProtocol(TunnelProtocol, ServerProtocol):
    """
    If plain clients are served, connects the application at once, since the application may have to
    speak first.  Its writes and other calls of the transport are postponed until the kind of client
    is known.
    """

    factory: _TunnelServerFactory
    _held: list[bytes] | None = None
    _producer: tuple[Any, bool] | None = None
    _pausesLater = False
    _endsLater = False
    _closesLater = False

    def _started(self) -> None:
        self._held = []
        super()._started()
        wait = self.factory.plainWait
        if self.wrappedProtocol is not None and wait:
            self._timer = self.factory.clock.callLater(wait, self._becomePlain)

    def _becomePlain(self) -> None:
        said = self._wire.becomePlain()
        if said:
            self._passOn(iter((said,)))
        else:
            self._decide()
            self._release()

    def _asked(self, bears: float) -> None:
        self._stopTimer()
        super()._asked(bears)
        self._release()

    def _admit(self, data: bytes) -> None:
        super()._admit(data)
        if self._held is not None:
            self._release()

    def _refusal(self, message: str, first: bytes) -> bytes:
        return super()._refusal(message, first) if self._peer.asked else b""

    def _release(self) -> None:
        """
        Carry out the postponed calls.
        """
        held, self._held = self._held, None
        if held is None or self._reason is not None:
            return
        if self._pausesLater:
            super().pauseProducing()
        if held:
            self.write(b"".join(held))
        if self._producer is not None:
            producer, streaming = self._producer
            self.transport.registerProducer(producer, streaming)
            if streaming:
                producer.resumeProducing()
        if self._endsLater:
            super().loseWriteConnection()
        if self._closesLater:
            self.transport.loseConnection()

    def pauseProducing(self) -> None:
        """
        Stop reading, now or once the kind of client is known.
        """
        if self._held is None:
            super().pauseProducing()
        else:
            self._pausesLater = True

    def resumeProducing(self) -> None:
        """
        Resume reading, or cancel a postponed pause.
        """
        self._pausesLater = False
        super().resumeProducing()

    def write(self, data: bytes) -> None:
        """
        Send the application's bytes.
        """
        if self._held is None:
            super().write(data)
        else:
            self._held.append(data)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        Let a producer write, as fast as the peer reads.
        """
        if self._held is None:
            self.transport.registerProducer(producer, streaming)
            return
        self._producer = (producer, streaming)
        if streaming:
            cast(Any, producer).pauseProducing()

    def unregisterProducer(self) -> None:
        """
        The producer has finished.
        """
        self._producer = None
        self.transport.unregisterProducer()

    def loseWriteConnection(self) -> None:
        """
        End the application's stream after the bytes written so far.
        """
        if self._held is None:
            super().loseWriteConnection()
        else:
            self._endsLater = True

    def loseConnection(self) -> None:
        """
        Close the connection after sending what was written.
        """
        self.disconnecting = 1
        if self._held is None:
            self.transport.loseConnection()
        else:
            self._closesLater = True


class _TunnelServerFactory(ServerFactory):
    """
    @ivar plainWait: seconds after which a silent client counts as plain; 0 for never.
    """

    protocol = _TunnelServerProtocol
    plainWait: float


def tunnelServer(
    factory: IProtocolFactory,
    policy: IKeepAlivePolicy,
    *,
    wait: float = PLAIN_WAIT,
    bears: float = BEARS,
    clock: IReactorTime | None = None,
) -> ServerFactory:
    """
    Serve an application through a tunnel.

    @param factory: the application's factory.
    @param policy: decides about keepalive for each client.  A policy that refuses clients without
        keepalive, as mode 2 does, refuses plain clients; any other serves them without a tunnel.
    @param wait: seconds after which a silent client counts as plain; 0 for never, for protocols
        whose client speaks first.
    @param bears: the shortest interval, in seconds, at which this side agrees to be pinged.
    @param clock: a reactor or a L{twisted.internet.task.Clock}; by default the reactor.
    @return: a factory to listen with.
    """
    made = _TunnelServerFactory(
        factory,
        TunnelMessages(),
        partial(TunnelWire, server=True),
        policy=policy,
        wait=WAIT,
        bears=bears,
        clock=clock,
    )
    made.plainWait = wait
    return made
