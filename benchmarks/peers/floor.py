"""
A minimal server, for machines without a compiler: one epoll loop and one timer wheel, like
C{floor.c}.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time

HEADER = struct.Struct(">IIIiIIi")
REMOTE, KEEPALIVE = 0x20008086, 0x6B656570
PING = HEADER.pack(28, KEEPALIVE, 1, 1, 2, 0, 0)
PONG = HEADER.pack(28, KEEPALIVE, 1, 2, 2, 0, 0)
ANSWERS = {66: struct.pack(">II", 1, 0), 60: struct.pack(">I", 1)}
SLOT = 0.01


class Peer:
    """
    A connection: when its last bytes arrived, and how many pings it has not answered.
    """

    __slots__ = ("connection", "heard", "pending", "unanswered", "watched")

    def __init__(self, connection: socket.socket, heard: float) -> None:
        """
        @param connection: the connection's socket.
        @param heard: the current time.
        """
        self.connection = connection
        self.heard = heard
        self.unanswered = 0
        self.pending = b""
        self.watched = False


class Floor:
    """
    The server.
    """

    def __init__(self, port: int, interval: float, count: int) -> None:
        """
        @param port: the port to listen on, on the loopback address.
        @param interval: seconds of silence before a ping.
        @param count: unanswered pings after which a peer is dead.
        """
        self.interval, self.count = interval, count
        self.listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self.listener.setblocking(False)
        self.poller = select.epoll()
        self.poller.register(self.listener, select.EPOLLIN)
        self.peers: dict[int, Peer] = {}
        self.slots: list[list[Peer]] = [[] for _ in range(int(interval / SLOT) + 3)]

    def run(self) -> None:
        """
        Serve until the process is stopped.
        """
        turned = int(time.monotonic() / SLOT)
        while True:
            wait = (turned + 1) * SLOT - time.monotonic()
            events = self.poller.poll(max(0.0, wait))
            now = time.monotonic()
            for descriptor, _ in events:
                peer = self.peers.get(descriptor)
                if peer is not None:
                    self.receive(peer, now)
                else:
                    self.admit(now)
            while (turned + 1) * SLOT <= now:
                turned += 1
                self.turn(turned % len(self.slots), now)

    def admit(self, now: float) -> None:
        """
        Accept all waiting connections.

        @param now: the current time.
        """
        while True:
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peers[connection.fileno()] = Peer(connection, now)
            self.poller.register(connection, select.EPOLLIN)

    def receive(self, peer: Peer, now: float) -> None:
        """
        Handle the bytes that a peer has sent.

        @param peer: the peer.
        @param now: the current time.
        """
        try:
            data = peer.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.forget(peer)
            return
        peer.heard, peer.unanswered = now, 0
        if data == PONG and not peer.pending:
            return
        data = peer.pending + data
        while len(data) >= HEADER.size:
            length, program, _, procedure, _, serial, _ = HEADER.unpack_from(data)
            if len(data) < length:
                break
            data = data[length:]
            if program == REMOTE:
                answer = ANSWERS.get(procedure, b"")
                head = HEADER.pack(28 + len(answer), REMOTE, 1, procedure, 1, serial, 0)
                peer.connection.send(head + answer)
                if procedure == 60 and not peer.watched:
                    peer.watched = True
                    self.schedule(peer, now + self.interval)
            elif procedure == 1:
                peer.connection.send(PONG)
        peer.pending = data

    def forget(self, peer: Peer) -> None:
        """
        Close a connection.  The wheel drops the peer when its slot is due.

        @param peer: the peer.
        """
        self.peers.pop(peer.connection.fileno(), None)
        peer.connection.close()

    def schedule(self, peer: Peer, due: float) -> None:
        """
        Schedule the next check of a peer.

        @param peer: the peer.
        @param due: the time of the check.
        """
        self.slots[(int(due / SLOT) + 1) % len(self.slots)].append(peer)

    def turn(self, slot: int, now: float) -> None:
        """
        Check the peers of one slot: ping or close those that are due, and schedule the others.

        @param slot: the number of the slot.
        @param now: the current time.
        """
        peers, self.slots[slot] = self.slots[slot], []
        for peer in peers:
            if peer.connection.fileno() < 0:
                continue
            due = peer.heard + self.interval * (1 + peer.unanswered)
            if now < due:
                self.schedule(peer, due)
            elif peer.unanswered == self.count:
                self.forget(peer)
            else:
                peer.unanswered += 1
                try:
                    peer.connection.send(PING)
                except OSError:
                    self.forget(peer)
                else:
                    self.schedule(peer, max(now, due + self.interval))


if __name__ == "__main__":
    Floor(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])).run()
