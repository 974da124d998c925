"""
libvirt's handshake and keepalive on a bare Twisted Protocol, with a choice of timers.

C{none} sends no pings, and shows how much memory a Protocol takes.  C{loopingcall} has a
LoopingCall for each connection, the obvious first implementation.  C{wheel} has one LoopingCall,
which drives a timer wheel of all peers.  None of them detects dead peers, so each does less work
than a keepalive server.
"""

from __future__ import annotations

import struct
import sys

from twisted.internet import reactor
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

HEADER = struct.Struct(">IIIiIIi")
REMOTE, KEEPALIVE = 0x20008086, 0x6B656570
PING = HEADER.pack(28, KEEPALIVE, 1, 1, 2, 0, 0)
PONG = HEADER.pack(28, KEEPALIVE, 1, 2, 2, 0, 0)
ANSWERS = {66: struct.pack(">II", 1, 0), 60: struct.pack(">I", 1)}
SLOT = 0.01


class Bare(Protocol):
    """
    Answers the handshake, and never pings.
    """

    transport: ITransport
    factory: BareFactory
    pending = b""

    def dataReceived(self, data: bytes) -> None:
        """
        Answer every whole message.

        @param data: the received bytes.
        """
        if self.pending:
            data, self.pending = self.pending + data, b""
        while len(data) >= HEADER.size:
            length, program, _, procedure, _, serial, _ = HEADER.unpack_from(data)
            if len(data) < length:
                break
            if program == REMOTE:
                self.called(procedure, serial)
            elif procedure == 1:
                self.transport.write(PONG)
            data = data[length:]
        if data:
            self.pending = data

    def called(self, procedure: int, serial: int) -> None:
        """
        Reply to a call.

        @param procedure: the procedure's number.
        @param serial: the call's serial number, which the reply repeats.
        """
        answer = ANSWERS.get(procedure, b"")
        self.transport.write(
            HEADER.pack(28 + len(answer), REMOTE, 1, procedure, 1, serial, 0) + answer
        )
        if procedure == 1:
            self.opened()

    def opened(self) -> None:
        """
        Start sending pings, if this kind of server sends any.
        """


class BareFactory(ServerFactory):
    """
    Builds one kind of protocol.

    @ivar interval: seconds between pings.
    """

    def __init__(self, protocol: type[Bare], interval: float) -> None:
        """
        @param protocol: the class to build.
        @param interval: seconds between pings.
        """
        self.protocol = protocol  # type: ignore[assignment]
        self.interval = interval


class Looping(Bare):
    """
    Sends pings from a LoopingCall for each connection.
    """

    loop: LoopingCall | None = None

    def opened(self) -> None:
        """
        Start the LoopingCall.
        """
        self.loop = LoopingCall(self.transport.write, PING)
        self.loop.start(self.factory.interval, now=False)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Stop the LoopingCall.

        @param reason: not used.
        """
        if self.loop is not None:
            self.loop.stop()


class Wheeled(Bare):
    """
    Is pinged by the factory's timer wheel.
    """

    factory: WheelFactory
    slot: set[Wheeled] | None = None

    def opened(self) -> None:
        """
        Join the slot that was pinged last, so the first ping is one interval away.
        """
        self.slot = self.factory.slots[self.factory.turned % len(self.factory.slots)]
        self.slot.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Leave the slot.

        @param reason: not used.
        """
        if self.slot is not None:
            self.slot.discard(self)


class WheelFactory(BareFactory):
    """
    A timer wheel: pings the peers of one slot every L{SLOT} seconds.

    @ivar slots: the peers of each slot.
    @ivar turned: the number of slots pinged so far.
    """

    turned = 0

    def __init__(self, interval: float) -> None:
        """
        @param interval: seconds for a whole turn of the wheel.
        """
        super().__init__(Wheeled, interval)
        self.slots: list[set[Wheeled]] = [set() for _ in range(round(interval / SLOT))]
        LoopingCall.withCount(self.turn).start(SLOT, now=False)

    def turn(self, count: int) -> None:
        """
        Ping the peers of the slots that are due.

        @param count: the number of slots that are due.
        """
        for _ in range(count):
            self.turned += 1
            for peer in self.slots[self.turned % len(self.slots)]:
                peer.transport.write(PING)


def makeFactory(timer: str, interval: float) -> BareFactory:
    """
    Make the factory for one kind of timer.

    @param timer: C{none}, C{loopingcall} or C{wheel}.
    @param interval: seconds between pings.
    @return: the factory.
    """
    if timer == "wheel":
        return WheelFactory(interval)
    return BareFactory({"none": Bare, "loopingcall": Looping}[timer], interval)


if __name__ == "__main__":
    port, interval, timer = sys.argv[1:]
    factory = makeFactory(timer, float(interval))
    reactor.listenTCP(int(port), factory, backlog=4096, interface="127.0.0.1")
    reactor.run()
