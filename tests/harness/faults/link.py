"""
Two network namespaces, and links between them that can be made bad: run as a program.

It creates the namespaces, which exist as long as it runs, puts one end of each link into each, and
forwards packets between the ends with the quality set for the link.  It sees what arrives, so it is
also the reference for when a byte last got through.

The ends are TUN devices, set up with ioctls only: no C{tc} with netem, iptables or iproute2 is
needed.

Usage: C{python link.py LINKS}.  The first line of the output is a JSON object with the paths of the
namespaces.  Each line of the input is a JSON object with an C{id}, repeated in the answer, a
C{link}, and optionally C{toServer} and C{toClient}: the fields of L{Quality} to set for packets in
that direction.  The answer has statistics of the packets so far.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import selectors
import socket
import struct
import sys
import time
from typing import Any, NamedTuple

__all__ = ["DIRECTIONS", "Quality", "Stream", "clientAddress", "main", "serverAddress"]

DIRECTIONS = ("toServer", "toClient")

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_SIOCSIFFLAGS = 0x8914
_SIOCSIFADDR = 0x8916
_SIOCSIFNETMASK = 0x891C
_IFF_UP_RUNNING = 0x41
_TCP = 6
_PACKET_MAX = 65536


def serverAddress(link: int) -> str:
    """
    @return: the address of a link's end in the servers' namespace.
    """
    return f"10.77.{link}.1"


def clientAddress(link: int) -> str:
    """
    @return: the address of a link's end in the clients' namespace.
    """
    return f"10.77.{link}.2"


class Quality(NamedTuple):
    """
    The quality of one direction of a link.

    @ivar loss: the fraction of packets lost, from 0 to 1.
    @ivar delay: the seconds each packet takes.
    @ivar jitter: the most seconds added or subtracted at random; packets keep their order.
    @ivar reorder: the fraction of packets delayed by C{held} more seconds, so that others overtake
        them.
    @ivar held: see C{reorder}.
    """

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    reorder: float = 0.0
    held: float = 0.0


class Stream:
    """
    One direction of a TCP connection, as it arrives at the far end of the link.

    The application cannot read a segment behind a gap until the gap is filled, so only bytes that
    are next in order count as heard.

    @ivar heard: when bytes that could be read at once arrived, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.heard: list[float] = []
        self._next: int | None = None
        self._waiting: dict[int, int] = {}

    def arrived(self, sequence: int, length: int, *, syn: bool, now: float) -> None:
        """
        Record the arrival of a segment.

        @param length: the number of bytes in it.
        """
        if syn:
            self._next = (sequence + 1) % 2**32
            self._waiting.clear()
        if not length or self._next is None:
            return
        self._waiting[sequence] = max(length, self._waiting.get(sequence, 0))
        before = self._next
        while self._takeNext():
            pass
        if self._next != before:
            self.heard.append(now)

    def _takeNext(self) -> bool:
        """
        @return: whether one of the waiting segments was next in order.
        """
        assert self._next is not None
        for start, size in self._waiting.items():
            if 0 < (start - self._next) % 2**32 < 2**31:
                continue
            del self._waiting[start]
            end = (start + size) % 2**32
            if 0 < (end - self._next) % 2**32 < 2**31:
                self._next = end
            return True
        return False


class _Direction:
    """
    One direction of a link.
    """

    def __init__(self, device: int) -> None:
        self.quality = Quality()
        self.device = device
        self.packets = 0
        self.lost = 0
        self.overtaken = 0
        self.streams: dict[str, Stream] = {}
        self._lastDue = 0.0
        self._newest = -1

    def due(self, now: float) -> float | None:
        """
        @return: when a packet sent now arrives, or C{None} if it is lost.
        """
        quality = self.quality
        self.packets += 1
        if random.random() < quality.loss:
            self.lost += 1
            return None
        due = now + quality.delay
        if quality.jitter:
            due = max(due + random.uniform(-quality.jitter, quality.jitter), self._lastDue)
            self._lastDue = due
        if random.random() < quality.reorder:
            due += quality.held
        return due

    def deliver(self, packet: bytes, number: int, now: float) -> None:
        """
        Deliver a packet.

        @param number: higher for packets sent later.
        """
        if number < self._newest:
            self.overtaken += 1
        self._newest = max(number, self._newest)
        header = (packet[0] & 15) * 4
        if packet[9] == _TCP and len(packet) >= header + 20:
            ports = "{}:{}".format(*struct.unpack_from(">HH", packet, header))
            (sequence,) = struct.unpack_from(">I", packet, header + 4)
            length = len(packet) - header - (packet[header + 12] >> 4) * 4
            stream = self.streams.setdefault(ports, Stream())
            stream.arrived(sequence, length, syn=bool(packet[header + 13] & 2), now=now)
        try:
            os.write(self.device, packet)
        except OSError:
            self.lost += 1

    def report(self) -> dict[str, Any]:
        """
        @return: statistics of the packets so far.
        """
        return {
            "packets": self.packets,
            "lost": self.lost,
            "overtaken": self.overtaken,
            "heard": {ports: stream.heard for ports, stream in self.streams.items()},
        }


def _unshare(flags: int) -> None:
    # os.unshare is new in Python 3.12.
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _becomeAdministrator() -> None:
    """
    Create a user namespace to be root in, which many machines allow ordinary users.
    """
    user, group = os.geteuid(), os.getegid()
    _unshare(_CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _enable(control: socket.socket, name: bytes) -> None:
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", name, _IFF_UP_RUNNING))


def _device(control: socket.socket, name: bytes, address: str) -> int:
    """
    Create a TUN device in the current namespace.

    @return: its file descriptor, which works in other namespaces too.
    """
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name, _IFF_TUN_NO_PI))
    for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
        where = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
        fcntl.ioctl(control, request, struct.pack("16s16s", name, where))
    _enable(control, name)
    return device


def _namespace(addresses: list[str]) -> tuple[int, list[int]]:
    """
    Create a namespace with one end of every link.

    @return: a file descriptor of the namespace, and those of the devices.
    """
    _unshare(_CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _enable(control, b"lo")
        devices = [
            _device(control, b"bad%d" % number, address) for number, address in enumerate(addresses)
        ]
    return os.open("/proc/self/ns/net", os.O_RDONLY), devices


class _Carrier:
    """
    Forwards packets and takes orders.
    """

    def __init__(self, server: list[int], client: list[int]) -> None:
        self._links = [
            {"toServer": _Direction(server[number]), "toClient": _Direction(client[number])}
            for number in range(len(server))
        ]
        self._onTheWay: list[tuple[float, int, _Direction, bytes]] = []
        self._number = 0
        self._orders = b""
        self._selector = selectors.DefaultSelector()
        for link in self._links:
            for source, target in (("toServer", "toClient"), ("toClient", "toServer")):
                device = link[source].device
                self._selector.register(device, selectors.EVENT_READ, link[target])
        self._selector.register(0, selectors.EVENT_READ, None)

    def run(self) -> None:
        """
        Run until the input ends.
        """
        while True:
            timeout = None
            if self._onTheWay:
                timeout = max(0.0, self._onTheWay[0][0] - time.monotonic())
            for key, _events in self._selector.select(timeout):
                if key.data is None:
                    if not self._takeOrders():
                        return
                else:
                    self._takePackets(key.fd, key.data)
            now = time.monotonic()
            while self._onTheWay and self._onTheWay[0][0] <= now:
                _due, number, direction, packet = heapq.heappop(self._onTheWay)
                direction.deliver(packet, number, now)

    def _takePackets(self, device: int, direction: _Direction) -> None:
        while True:
            try:
                packet = os.read(device, _PACKET_MAX)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4:
                continue
            due = direction.due(time.monotonic())
            if due is not None:
                self._number += 1
                heapq.heappush(self._onTheWay, (due, self._number, direction, packet))

    def _takeOrders(self) -> bool:
        data = os.read(0, _PACKET_MAX)
        *lines, self._orders = (self._orders + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            link = self._links[order["link"]]
            for name in DIRECTIONS:
                if name in order:
                    link[name].quality = Quality(**order[name])
            report = {name: link[name].report() for name in DIRECTIONS}
            print(json.dumps({"id": order["id"], "at": time.monotonic(), **report}), flush=True)
        return bool(data)


def main() -> None:
    """
    Create the namespaces and forward packets.
    """
    numbers = range(int(sys.argv[1]))
    try:
        if os.geteuid():
            _becomeAdministrator()
        server, serverDevices = _namespace([serverAddress(number) for number in numbers])
        client, clientDevices = _namespace([clientAddress(number) for number in numbers])
    except OSError as error:
        sys.exit(f"no network namespaces with TUN devices to be had: {error}")
    folder = f"/proc/{os.getpid()}"
    ready = {
        "server": f"{folder}/fd/{server}",
        "client": f"{folder}/fd/{client}",
        "user": f"{folder}/ns/user" if os.geteuid() else None,
    }
    print(json.dumps(ready), flush=True)
    _Carrier(serverDevices, clientDevices).run()


if __name__ == "__main__":
    main()
