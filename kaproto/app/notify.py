"""
Tells systemd how the service is: sd_notify(3) without libsystemd.
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
What systemd tells this process only.
"""

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """
    Sends messages to the manager that started this process; without one, to nobody.

    @ivar watchdog: seconds after which the manager restarts a process that it has not heard from;
        0 for never.
    """

    def __init__(
        self,
        address: str | None = None,
        watchdog: float = 0.0,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param address: the path of the manager's socket, or C{@} and its name.
        @param seconds: the monotonic clock, which systemd compares times by.
        """
        self.watchdog = watchdog
        self._address = address
        self._seconds = seconds
        self._status = ""

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        # A manager that does not read must not hold up the service.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(
                "\0" + self._address[1:] if self._address.startswith("@") else self._address
            )
            sender.send("\n".join(assignments).encode())

    def ready(self) -> None:
        """
        The service has started, or has reloaded.
        """
        self._send("READY=1")

    def reloading(self) -> None:
        """
        The service has begun to reload; L{ready} ends that.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._seconds() * _MICROSECONDS)}")

    def stopping(self, within: float) -> None:
        """
        The service has begun to stop.

        @param within: seconds in which it will have stopped, for which the manager waits.
        """
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within * _MICROSECONDS)}")

    def status(self, text: str) -> None:
        """
        Say in a line how the service is, if that has changed.
        """
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def alive(self) -> None:
        """
        The service works.  To be called twice within L{watchdog} seconds.
        """
        self._send("WATCHDOG=1")


def takeEnvironment(environment: MutableMapping[str, str], pid: int) -> Notifier:
    """
    Take from the environment what systemd has put there, so that no child of this process takes it
    for its own.

    @param pid: this process.
    """
    given = {name: environment.pop(name) for name in _VARIABLES if name in environment}
    watchdog = 0.0
    if given.get("WATCHDOG_PID", str(pid)) == str(pid):
        with suppress(ValueError):
            watchdog = int(given.get("WATCHDOG_USEC", "0")) / _MICROSECONDS
    return Notifier(given.get("NOTIFY_SOCKET"), watchdog)
