"""
Tests for L{kaproto.app.notify}.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.notify import Notifier, takeEnvironment


class NotifierTests(SynchronousTestCase):
    """
    Tests for the messages to systemd.
    """

    def manager(self, address: str) -> socket.socket:
        """
        @return: the socket on which systemd would receive.
        """
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(receiver.close)
        receiver.setblocking(False)
        receiver.bind(address.replace("@", "\0"))
        return receiver

    def test_messages(self) -> None:
        """
        Each message is one datagram in systemd's format, to a socket in the file system or an
        abstract one.
        """
        folder = Path(os.path.relpath(self.mktemp()))
        folder.mkdir(parents=True)
        for address in (str(folder / "n"), f"@kaproto-notify-{os.getpid()}"):
            manager = self.manager(address)
            notifier = Notifier(address, seconds=lambda: 12.5)
            for send, message in (
                (notifier.ready, b"READY=1"),
                (notifier.reloading, b"RELOADING=1\nMONOTONIC_USEC=12500000"),
                (notifier.alive, b"WATCHDOG=1"),
                (partial(notifier.stopping, 2.5), b"STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000"),
                (partial(notifier.status, "1 client"), b"STATUS=1 client"),
            ):
                send()
                self.assertEqual(manager.recv(1000), message)

    def test_statusOnce(self) -> None:
        """
        A status is sent only when it has changed.
        """
        address = f"@kaproto-notify-{os.getpid()}"
        manager = self.manager(address)
        notifier = Notifier(address)
        for text in ("a", "a", "b"):
            notifier.status(text)
        self.assertEqual([manager.recv(1000) for _ in range(2)], [b"STATUS=a", b"STATUS=b"])
        self.assertRaises(BlockingIOError, manager.recv, 1000)

    def test_nobody(self) -> None:
        """
        Without a manager, or with one that has gone away or does not read, nothing is raised.
        """
        Notifier().ready()
        Notifier("/nothere").ready()
        address = f"@kaproto-notify-{os.getpid()}"
        self.manager(address)
        notifier = Notifier(address)
        for _ in range(10_000):
            notifier.ready()


class EnvironmentTests(SynchronousTestCase):
    """
    Tests for systemd's environment variables.
    """

    def test_taken(self) -> None:
        """
        Variables for this process are removed, and others are kept.
        """
        address = f"@kaproto-notify-{os.getpid()}"
        environment = {
            "PATH": "/bin",
            "NOTIFY_SOCKET": address,
            "WATCHDOG_USEC": "60000000",
            "WATCHDOG_PID": "7",
            "LISTEN_PID": "7",
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "kaserver",
        }
        notifier = takeEnvironment(environment, 7)
        self.assertEqual(environment, {"PATH": "/bin"})
        self.assertEqual(notifier.watchdog, 60)
        self.assertEqual(notifier._address, address)

    def test_watchdog(self) -> None:
        """
        A watchdog that is malformed or for another process is ignored.
        """
        for environment, watchdog in (
            ({"WATCHDOG_USEC": "500000"}, 0.5),
            ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "8"}, 0),
            ({"WATCHDOG_USEC": "x"}, 0),
            ({}, 0),
        ):
            self.assertEqual(takeEnvironment(dict(environment), 7).watchdog, watchdog)
