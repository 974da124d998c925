"""
Starts worker processes.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import attrs

from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.keepalive.liveness import KeepAlive
from kaproto.workers.handover import Handover
from kaproto.workers.places import SharedCounts
from kaproto.workers.process import WorkerProcess
from kaproto.workers.sockets import BindingReactor

__all__ = ["Starter"]

_FIRST: Final = 3
"""
The first file descriptor after standard input, output and error.
"""


class _Files:
    """
    The files for a new process: this process's file descriptors, by their numbers in the new one.
    """

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def add(self, descriptor: int) -> int:
        """
        @param descriptor: a file descriptor of this process.
        @return: its number in the new process.
        """
        number = max(self.numbers) + 1
        self.numbers[number] = descriptor
        return number


@attrs.frozen
class Starter:
    """
    Starts workers.

    @ivar reactor: the reactor.
    @ivar clock: a monotonic clock.
    @ivar binding: the reactor that has bound the sockets.
    @ivar counts: the shared counts.
    @ivar books: the file descriptor of the shared memory of failed logins.
    @ivar settings: returns the current settings, as a configuration file.
    @ivar workers: the number of workers.
    @ivar room: the most clients that a worker's open-file limit allows.
    @ivar sampled: whether workers measure the reactor's turns.
    @ivar log: returns the destination of a worker's log.
    @ivar output: the file descriptor that becomes the workers' standard output.
    @ivar patience: interval and count for pinging workers.
    @ivar traced: called with events of traced clients.
    """

    reactor: Any
    clock: Any
    binding: BindingReactor
    counts: SharedCounts
    books: int
    settings: Callable[[], str]
    workers: int
    room: int
    sampled: bool
    log: Callable[[int], Mapping[str, Any]]
    output: int
    patience: KeepAlive
    traced: Callable[[bytes], None]

    def start(self, seat: int, row: int) -> WorkerProcess:
        """
        Start a worker.

        @param seat: the number of the sockets that it accepts on.
        @param row: its row in the shared counts.
        """
        worker = WorkerProcess(seat, row, self.patience, self.clock)
        with ExitStack() as opened:
            ours, theirs = (opened.enter_context(each) for each in socket.socketpair())
            nothing = os.open(os.devnull, os.O_RDWR)
            opened.callback(os.close, nothing)
            files = self._files(seat, nothing)
            sockets: dict[str, list[int]] = {}
            for port in self.binding.ports:
                number = files.add(port.socketFor(seat).fileno())
                sockets.setdefault(port.name, []).append(number)
            handover = Handover(
                settings=self.settings(),
                worker=seat + 1,
                workers=self.workers,
                row=row,
                rows=self.counts.rows,
                room=self.room,
                counts=files.add(self.counts.descriptor),
                books=files.add(self.books),
                channel=files.add(theirs.fileno()),
                sockets=sockets,
                # Like LISTEN_FDS, this counts descriptors from 3, including unused ones.
                passed=max(self.binding.passed, default=_FIRST - 1) + 1 - _FIRST,
                passedNames=self.binding.passedNames,
                reactor=type(self.reactor).__module__,
                sampled=self.sampled,
                log=self.log(seat + 1),
            ).write()
            opened.callback(os.close, handover)
            number = files.add(handover)
            self.reactor.spawnProcess(
                worker,
                sys.executable,
                [sys.executable, "-m", "kaproto.workers.serve", str(number)],
                # The worker finds plugins in the same places.
                {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                childFDs=files.numbers,
            )
            self._connect(worker, ours)
        return worker

    def _files(self, seat: int, nothing: int) -> _Files:
        files = _Files()
        files.numbers = {0: nothing, 1: self.output, 2: 2}
        for number, port in self.binding.passed.items():
            files.numbers[number] = port.socketFor(seat).fileno()
        return files

    def _connect(self, worker: WorkerProcess, ours: socket.socket) -> None:
        def opened(connection: KeepAliveClientProtocol) -> None:
            worker.attach(connection, self.traced)

        factory = KeepAliveClientFactory(clock=self.clock, onOpen=opened)
        factory.startsOpen = True
        self.reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
