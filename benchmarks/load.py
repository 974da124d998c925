"""
The load generator in Python, for machines without a compiler: same options, commands and reports
as C{load.c}, no TLS, and about a tenth of the speed.
"""

from __future__ import annotations

import argparse
import errno
import ipaddress
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable

from benchmarks.processes import raiseFileLimit

HEADER = struct.Struct(">IIIiIIi")
REMOTE, KEEPALIVE = 0x20008086, 0x6B656570
PONG = HEADER.pack(28, KEEPALIVE, 1, 2, 2, 0, 0)
PING_START = struct.pack(">IIIi", 28, KEEPALIVE, 1, 1)
LAUNCH = 32
IP_BIND_ADDRESS_NO_PORT = 24
ERROR_TEXT = slice(16, 116)


def call(procedure: int, serial: int, arguments: bytes = b"") -> bytes:
    """
    Compose a call to libvirt's remote program.

    @param procedure: the procedure's number.
    @param serial: the serial number of the call.
    @param arguments: the arguments, in XDR.
    @return: the message.
    """
    return HEADER.pack(28 + len(arguments), REMOTE, 1, procedure, 0, serial, 0) + arguments


HANDSHAKE = {
    None: call(66, 0),
    66: call(60, 1, struct.pack(">I", 10)),
    60: call(1, 2, struct.pack(">II16sI", 1, 15, b"test:///default", 0)),
}
"""
The message to send after the reply to each procedure; by C{None} the first message.
"""


class ClientError(Exception):
    """
    A client cannot continue; the text says why.
    """


class Client:
    """
    One connection.

    @ivar sent: the time when its last byte was sent.
    @ivar opened: whether it has opened.
    """

    def __init__(self, connection: socket.socket, load: Load, started: float) -> None:
        """
        @param connection: the socket, which is connecting.
        @param load: the load that the client belongs to.
        @param started: the time when it began to connect.
        """
        self.connection = connection
        self.load = load
        self.started = self.sent = started
        self.interval = load.options.interval
        self.connected = self.opened = False
        self.pending = b""

    def send(self, data: bytes) -> None:
        """
        Send all bytes, which always fit an idle connection's buffer.

        @param data: the bytes.
        """
        if self.connection.send(data) != len(data):
            raise ClientError("a message could not be sent at once")
        self.sent = time.monotonic()

    def writable(self) -> None:
        """
        The socket is connected: begin the handshake.
        """
        error = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise ClientError(f"connect: {errno.errorcode.get(error, error)}")
        self.connected = True
        self.load.poller.modify(self.connection, select.EPOLLIN)
        if self.load.options.spread:
            port = self.connection.getsockname()[1]
            self.interval *= 0.75 + port % 1000 / 2000
        self.start()

    def readable(self) -> None:
        """
        Read the bytes that arrived.
        """
        data = self.connection.recv(65536)
        if not data:
            raise ClientError("the server closed the connection")
        self.received(self.pending + data if self.pending else data)

    def answer(self, data: bytes) -> None:
        """
        Answer a ping, and record how late the ping and its pong are.

        @param data: the pong.
        """
        if self.load.muted:
            return
        due, now = self.sent + self.interval, time.monotonic()
        self.send(data)
        if self.opened:
            self.load.pingLate.append(now - due)
            self.load.pongLate.append(self.sent - due)

    def start(self) -> None:
        """
        Send the first message.
        """
        self.send(HANDSHAKE[None])

    def received(self, data: bytes) -> None:
        """
        Handle libvirt's messages.

        @param data: all received bytes that have not been handled yet.
        """
        while len(data) >= HEADER.size:
            length, program, _, procedure, kind, _, status = HEADER.unpack_from(data)
            if length < HEADER.size:
                raise ClientError(f"a message of {length} bytes was announced")
            if len(data) < length:
                break
            if program == KEEPALIVE:
                if procedure == 1:
                    self.answer(PONG)
            elif kind == 1:
                self.replied(procedure, status, data[HEADER.size : length])
            data = data[length:]
        self.pending = data

    def replied(self, procedure: int, status: int, payload: bytes) -> None:
        """
        Continue the handshake.

        @param procedure: the procedure that was answered.
        @param status: 0 for success.
        @param payload: the answer.
        """
        if status:
            text = payload[ERROR_TEXT].decode(errors="replace")
            raise ClientError(f"procedure {procedure} refused: {text}")
        if procedure == 60 and not any(payload):
            raise ClientError("the server says it has no keepalive")
        if procedure == 1:
            self.load.succeeded(self)
        else:
            self.send(HANDSHAKE[procedure])


class WebSocketClient(Client):
    """
    One WebSocket connection.
    """

    def start(self) -> None:
        """
        Request the upgrade.
        """
        self.send(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: a2VlcGFsaXZlIGNsaWVudA==\r\n\r\n" % self.load.options.port
        )

    def received(self, data: bytes) -> None:
        """
        Handle the reply to the upgrade, then pings.

        @param data: all received bytes that have not been handled yet.
        """
        if not self.opened and b"\r\n\r\n" in data:
            if data[9:12] != b"101":
                raise ClientError(f"upgrade refused: {data[:12].decode(errors='replace')}")
            data = data.partition(b"\r\n\r\n")[2]
            self.load.succeeded(self)
        while self.opened and len(data) >= 2:
            length = data[1] & 0x7F
            if data[0] & 0x0F != 9:
                raise ClientError(f"a frame with opcode {data[0] & 0x0F} came, which is no ping")
            if len(data) < 2 + length:
                break
            # The mask is four zeros, which do not change the payload.
            self.answer(bytes((0x8A, 0x80 | length, 0, 0, 0, 0)) + data[2 : 2 + length])
            data = data[2 + length :]
        self.pending = data


class Load:
    """
    All clients.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        """
        @param options: the command line.
        """
        self.options = options
        self.poller = select.epoll()
        self.clients: dict[int, Client] = {}
        self.launched = self.opening = self.opened = 0
        self.refused = self.timedOut = self.lost = 0
        self.muted = False
        self.firstError = ""
        self.pingLate: list[float] = []
        self.pongLate: list[float] = []
        self.deathLate: list[float] = []
        self.begun = self.lastOpened = self.marked = time.monotonic()
        self.markedCpu = 0.0

    def succeeded(self, client: Client) -> None:
        """
        A client has opened.

        @param client: the client.
        """
        client.opened = True
        self.opening -= 1
        self.opened += 1
        self.lastOpened = time.monotonic()

    def drop(self, client: Client, why: str) -> None:
        """
        Close a client's connection.

        @param client: the client.
        @param why: the reason; the first one is reported.
        """
        self.firstError = self.firstError or why
        del self.clients[client.connection.fileno()]
        client.connection.close()
        if not client.opened:
            self.opening -= 1
            return
        self.lost += 1
        if self.muted:
            silence = client.interval * (self.options.count + 1)
            self.deathLate.append(time.monotonic() - client.sent - silence)

    def launch(self, now: float) -> None:
        """
        Start a connection.

        @param now: the time.
        """
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Close with a reset, because sockets in TIME_WAIT would use up the local ports.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        kind = WebSocketClient if self.options.websocket else Client
        client = self.clients[connection.fileno()] = kind(connection, self, now)
        self.launched += 1
        self.opening += 1
        if self.options.source:
            address = self.options.source + int(ipaddress.IPv4Address("127.0.0.1"))
            connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            connection.bind((str(ipaddress.IPv4Address(address)), 0))
        code = connection.connect_ex((self.options.host, self.options.port))
        if code not in (0, errno.EINPROGRESS):
            self.refused += 1
            self.drop(client, f"connect: {errno.errorcode.get(code, code)}")
            return
        self.poller.register(connection, select.EPOLLOUT)

    def launchMore(self, now: float) -> None:
        """
        Start as many connections as the limits allow now.

        @param now: the time.
        """
        allowed = self.options.clients
        if self.options.rate:
            allowed = min(allowed, int((now - self.begun) * self.options.rate) + 1)
        for _ in range(LAUNCH):
            if self.launched >= allowed or self.opening >= self.options.inflight:
                break
            self.launch(now)

    def expire(self, now: float) -> None:
        """
        Close connections that take too long to open.

        @param now: the time.
        """
        over = now - self.begun > self.options.deadline
        for client in list(self.clients.values()):
            if not client.opened and (over or now - client.started > self.options.timeout):
                self.timedOut += 1
                where = "in the handshake" if client.connected else "connecting"
                self.drop(client, f"no answer while {where}")

    def serve(self, descriptor: int) -> None:
        """
        Handle an event of a connection.

        @param descriptor: its file descriptor.
        """
        client = self.clients.get(descriptor)
        if client is None:
            return
        step: Callable[[], None] = client.readable if client.connected else client.writable
        try:
            step()
        except BlockingIOError:
            return
        except (ClientError, OSError) as error:
            self.refused += not client.opened
            self.drop(client, str(error))

    def run(self) -> None:
        """
        Run until the command C{quit}.
        """
        self.poller.register(sys.stdin, select.EPOLLIN)
        told, checked = False, self.begun
        while True:
            busy = self.launched < self.options.clients and not self.options.rate
            wait = None if told else 0.0 if busy and self.opening < self.options.inflight else 0.001
            for descriptor, _ in self.poller.poll(wait):
                if descriptor == sys.stdin.fileno():
                    commands = os.read(descriptor, 4096).decode().split() or ["quit"]
                    if not all(map(self.obey, commands)):
                        return
                else:
                    self.serve(descriptor)
            now = time.monotonic()
            if told:
                continue
            if now - self.begun <= self.options.deadline:
                self.launchMore(now)
            if now - checked > 0.1:
                self.expire(now)
                checked = now
            over = now - self.begun > self.options.deadline
            if not self.opening and (over or self.launched == self.options.clients):
                self.tellOpened()
                told = True

    def tellOpened(self) -> None:
        """
        Report how many connections opened and failed.
        """
        seconds = self.lastOpened - self.begun
        _tell(
            event="opened",
            clients=self.options.clients,
            opened=self.opened,
            refused=self.refused,
            timedOut=self.timedOut,
            notTried=self.options.clients - self.launched,
            lost=self.lost,
            seconds=seconds,
            opensPerSecond=self.opened / seconds if self.opened else 0,
            firstError=self.firstError,
        )

    def obey(self, command: str) -> bool:
        """
        Execute a command.

        @param command: C{mark}, C{mute}, C{report} or C{quit}.
        @return: whether to continue.
        """
        match command:
            case "mark" | "mute" as what:
                self.muted = self.muted or what == "mute"
                self.pingLate.clear()
                self.pongLate.clear()
                self.marked, self.markedCpu = time.monotonic(), time.process_time()
                _tell(event={"mark": "marked", "mute": "muted"}[what])
            case "report":
                elapsed = time.monotonic() - self.marked
                samples = {
                    "ping": _summary(self.pingLate),
                    "pong": _summary(self.pongLate),
                    "death": _summary(self.deathLate),
                }
                _tell(
                    event="report",
                    seconds=elapsed,
                    roundTrips=len(self.pongLate),
                    held=self.opened - self.lost,
                    lost=self.lost,
                    generatorCpu=(time.process_time() - self.markedCpu) / elapsed,
                    firstError=self.firstError,
                    **{name: figures for name, figures in samples.items() if figures},
                )
                self.pingLate.clear()
                self.pongLate.clear()
            case _:
                return False
        return True


def _summary(samples: list[float]) -> dict[str, float]:
    if not samples:
        return {}
    samples.sort()
    return {
        "count": len(samples),
        "min": samples[0],
        "p50": samples[len(samples) // 2],
        "p99": samples[len(samples) * 99 // 100],
        "max": samples[-1],
    }


def _tell(**event: object) -> None:
    print(json.dumps(event), flush=True)


def main() -> None:
    """
    Run the generator.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    for name, whole in (("clients", 1), ("inflight", 256), ("count", 5), ("source", 0)):
        parser.add_argument(f"--{name}", type=int, default=whole)
    for name, number in (("rate", 0.0), ("interval", 2.0), ("timeout", 30.0), ("deadline", 120.0)):
        parser.add_argument(f"--{name}", type=float, default=number)
    parser.add_argument("--websocket", action="store_true")
    parser.add_argument("--spread", action="store_true")
    options = parser.parse_args()
    raiseFileLimit(options.clients + 100)
    Load(options).run()


if __name__ == "__main__":
    main()
