"""
Reports the service's state to systemd: sd_notify(3) without libsystemd.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Final

__all__ = ["Notifier", "takeEnvironment"]

_VARIABLES: Final = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
)
"""
The environment variables that systemd sets for this process only.
"""

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """
    Sends messages to the service manager that started this process; without one, does nothing.

    @ivar watchdog: the watchdog timeout in seconds, after which the manager restarts a silent
        process; 0 for none.
    """

    def __init__(
        self,
        address: str | None = None,
        watchdog: float = 0.0,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param address: the path of the manager's socket, or C{@} and its abstract name.
        @param seconds: the monotonic clock, which is systemd's, too.
        """
        self.watchdog = watchdog
        self._address = address
        self._seconds = seconds
        self._status = ""

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        # Do not block if the manager does not read.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(
                "\0" + self._address[1:] if self._address.startswith("@") else self._address
            )
            sender.send("\n".join(assignments).encode())

    def ready(self) -> None:
        """
        Report that the service has started, or has reloaded.
        """
        self._send("READY=1")

    def reloading(self) -> None:
        """
        Report that the service has begun to reload; L{ready} reports the end.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._seconds() * _MICROSECONDS)}")

    def stopping(self, within: float) -> None:
        """
        Report that the service has begun to stop.

        @param within: seconds that stopping may take; the manager waits that long.
        """
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within * _MICROSECONDS)}")

    def status(self, text: str) -> None:
        """
        Report the service's state in one line, if it has changed.
        """
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def alive(self) -> None:
        """
        Reset the watchdog.  Call this at least twice within L{watchdog} seconds.
        """
        self._send("WATCHDOG=1")


def takeEnvironment(environment: MutableMapping[str, str], pid: int) -> Notifier:
    """
    Remove systemd's variables from the environment, so that child processes do not use them.

    @param pid: the id of this process.
    @return: the notifier for systemd.
    """
    given = {name: environment.pop(name) for name in _VARIABLES if name in environment}
    watchdog = 0.0
    if given.get("WATCHDOG_PID", str(pid)) == str(pid):
        with suppress(ValueError):
            watchdog = int(given.get("WATCHDOG_USEC", "0")) / _MICROSECONDS
    return Notifier(given.get("NOTIFY_SOCKET"), watchdog)
