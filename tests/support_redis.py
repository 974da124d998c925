"""
An in-memory model of those parts of Redis that kaproto uses, and connections to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from kaproto.registry.schema import LEASE, NODES, READ, WRITE

__all__ = ["ModelRedis", "ModelTransport"]

_ADDRESS: Final = IPv4Address("TCP", "192.0.2.9", 6379)


@implementer(IStreamClientEndpoint)
class ModelRedis:
    """
    A Redis with keys, channels and faults.

    @ivar refuses: whether to refuse connections.
    @ivar hangs: whether to answer nothing.
    @ivar error: the reply to each script, instead of running it.
    @ivar password: the password that clients must log in with.
    @ivar commands: the commands received.
    @ivar received: the number of bytes received.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.hashes: dict[str, dict[str, str]] = {}
        self.leases: dict[str, float] = {}
        self.nodes: set[str] = set()
        self.refuses = self.hangs = False
        self.error: str | None = None
        self.password: str | None = None
        self.commands: list[list[str]] = []
        self.received = 0
        self.transports: list[ModelTransport] = []

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        @return: a connection, unless C{refuses}.
        """
        if self.refuses:
            return fail(ConnectError(string="Connection refused"))
        protocol = factory.buildProtocol(_ADDRESS)
        assert protocol is not None
        self.transports.append(transport := ModelTransport(self, protocol))
        protocol.makeConnection(cast(Any, transport))
        return succeed(protocol)

    def flush(self) -> None:
        """
        Delete all keys, as FLUSHALL does.
        """
        self.hashes.clear()
        self.leases.clear()
        self.nodes.clear()

    def drop(self) -> None:
        """
        Close all connections.
        """
        for each in list(self.transports):
            each.lose()

    def publish(self, channel: str, message: str) -> int:
        """
        @return: the number of subscribers.
        """
        heard = [each for each in self.transports if channel in each.channels]
        for each in heard:
            each.send(["message", channel, message])
        return len(heard)

    def clients(self, node: str) -> dict[str, str]:
        """
        @return: the stored clients of a node.
        """
        return self.hashes.get(f"kaproto:clients:{node}", {})

    def run(self, transport: ModelTransport, words: list[str]) -> object:
        """
        @return: the reply to a command.
        """
        self.commands.append(words)
        match words:
            case ["AUTH", *rest]:
                transport.isKnown = rest[-1] == self.password
                return "+OK" if transport.isKnown else "-WRONGPASS invalid password"
            case _ if self.password is not None and not transport.isKnown:
                return "-NOAUTH Authentication required."
            case ["SELECT", _number]:
                return "+OK"
            case ["PING"]:
                return ["pong", ""] if transport.channels else "+PONG"
            case ["SUBSCRIBE", channel]:
                transport.channels.add(channel)
                return ["subscribe", channel, 1]
            case ["PUBLISH", channel, message]:
                return self.publish(channel, message)
            case ["ZRANGE", name, "0", "-1"] if name == NODES:
                return sorted(self.nodes)
            case ["EVAL", script, "4", node, lease, clients, _nodes, *arguments]:
                if self.error is not None:
                    return self.error
                run = {WRITE: self._write, READ: self._read}[script]
                return run(node, lease, clients, arguments)
        return f"-ERR unknown command {words}"

    def _write(self, node: str, lease: str, clients: str, arguments: list[str]) -> str:
        name, action, given, hint, begun, about, refused, complete, count, *rest = (
            *arguments,
            *[""] * (9 - len(arguments)),
        )
        stored = int(self.hashes.get(node, {}).get("epoch", "0"))
        epoch = int(given)
        if not epoch and self.hashes.get(node, {}).get("process") == hint:
            epoch = stored
        epoch = epoch or max(stored + 1, int(float(hint)))
        if stored > epoch:
            return f"+superseded {stored} 0"
        fields = self.hashes.get(node, {})
        last = int(fields.get("begun", "0")) if stored == epoch else 0
        if last > int(begun):
            return f"+unknown {epoch} 0"
        if action == "leave":
            if stored == epoch:
                self.hashes.pop(node, None)
                self.hashes.pop(clients, None)
                self.leases.pop(lease, None)
                self.nodes.discard(name)
            return f"+left {epoch} 0"
        if action == "begin":
            self.hashes.pop(clients, None)
        elif stored < epoch or last < int(begun):
            return f"+unknown {epoch} 0"
        fields = self.hashes.setdefault(node, {})
        fields.update(epoch=str(epoch), begun=begun, process=hint, about=about, complete=complete)
        if refused:
            fields["refused"] = refused
        values = self.hashes.setdefault(clients, {})
        changed, ended = rest[: 2 * int(count)], rest[2 * int(count) :]
        values.update(zip(changed[::2], changed[1::2], strict=True))
        for each in ended:
            values.pop(each, None)
        self.leases[lease] = self.clock.seconds() + LEASE
        self.nodes.add(name)
        return f"+written {epoch} {len(values)}"

    def _read(self, node: str, lease: str, clients: str, arguments: list[str]) -> list[object]:
        fields = self.hashes.get(node, {})
        values = self.hashes.get(clients, {})
        present = self.leases.get(lease, 0.0) > self.clock.seconds()
        return [
            *(fields.get(each, "") for each in ("epoch", "about", "complete", "refused")),
            str(int(present)),
            str(len(values)),
            "\n".join(values.values()) if arguments == ["clients"] else "",
        ]


class ModelTransport:
    """
    The client's end of a connection to a L{ModelRedis}.

    @ivar channels: the channels that the client subscribes to.
    @ivar isKnown: whether it has logged in.
    """

    def __init__(self, redis: ModelRedis, protocol: IProtocol) -> None:
        self.channels: set[str] = set()
        self.isKnown = False
        self.connected = True
        self.disconnecting = False
        self.disconnected = False
        self._redis = redis
        self._protocol = protocol
        self._buffer = b""

    def getPeer(self) -> IPv4Address:
        """
        @return: a fixed address.
        """
        return _ADDRESS

    getHost = getPeer

    def write(self, data: bytes) -> None:
        """
        Pass commands to Redis, whose replies arrive a turn later.
        """
        self._redis.received += len(data)
        self._buffer += data
        while (words := self._next()) is not None:
            if not self._redis.hangs and not self.disconnected:
                self.send(self._redis.run(self, words))

    def writeSequence(self, pieces: list[bytes]) -> None:
        """
        Write pieces at once.
        """
        self.write(b"".join(pieces))

    def _next(self) -> list[str] | None:
        """
        @return: the next command, C{None} while it is incomplete.
        """
        rest, found = self._buffer, []
        line, end, rest = rest.partition(b"\r\n")
        for _word in range(int(line[1:]) if end else 0):
            line, _end, rest = rest.partition(b"\r\n")
            size = int(line[1:])
            found.append(rest[:size].decode())
            rest = rest[size + 2 :]
        if not end:
            return None
        self._buffer = rest
        return found

    def send(self, reply: object) -> None:
        """
        Send a reply or a published message to the client.
        """
        self._later(self._protocol.dataReceived, _packed(reply))

    def sendRaw(self, data: bytes) -> None:
        """
        Send bytes to the client.
        """
        self._later(self._protocol.dataReceived, data)

    def _later(self, function: Callable[[bytes], object], data: bytes) -> None:
        self._redis.clock.callLater(0, lambda: self.disconnected or function(data))

    def pauseProducing(self) -> None:
        """
        Do nothing.  txredisapi pauses only for a moment.
        """

    resumeProducing = pauseProducing

    def abortConnection(self) -> None:
        """
        Close the connection, a turn later.
        """
        self._redis.clock.callLater(0, self.lose)

    loseConnection = abortConnection

    def lose(self) -> None:
        """
        Close the connection.
        """
        if not self.disconnected:
            self.disconnected = True
            self.connected = False
            self._redis.transports.remove(self)
            self._protocol.connectionLost(Failure(ConnectionDone()))


def _packed(reply: object) -> bytes:
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(_element, reply))
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    return f"{reply}\r\n".encode()


def _element(value: object) -> bytes:
    if isinstance(value, int):
        return b":%d\r\n" % value
    data = str(value).encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)
