"""
The data that a parent passes to a new worker: settings, and the numbers of open files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

__all__ = ["Handover"]


@attrs.frozen
class Handover:
    """
    The data for one worker.

    @ivar settings: the parent's settings, as a configuration file.
    @ivar worker: the worker's number, from 1.
    @ivar workers: the number of workers.
    @ivar row: its row in the shared counts.
    @ivar rows: the number of rows.
    @ivar room: the most clients that its open-file limit allows; 0 for any number.
    @ivar counts: the file of the shared counts.
    @ivar books: the file of the shared L{kaproto.security.loginbooks.Books}.
    @ivar channel: the worker's end of the connection to the parent.
    @ivar sockets: the file descriptors to accept on, by the name of the address.
    @ivar passed: the number of sockets that systemd passed, beginning at file descriptor 3.
    @ivar passedNames: their names, in the format of C{LISTEN_FDNAMES}.
    @ivar reactor: the module of the reactor to use.
    @ivar sampled: whether to measure the reactor's turns, for a status page.
    @ivar log: the destination of the log, see L{kaproto.workers.logs.LogTarget}.
    """

    settings: str
    worker: int
    workers: int
    row: int
    rows: int
    room: int
    counts: int
    books: int
    channel: int
    sockets: Mapping[str, Sequence[int]]
    passed: int
    passedNames: str
    reactor: str
    sampled: bool
    log: Mapping[str, Any]

    def write(self) -> int:
        """
        @return: the descriptor of a file in memory with this data.  Settings may contain a
            password, so they are not passed on the command line or in the environment, which other
            processes can see.
        """
        descriptor = os.memfd_create("kaserver-worker")
        with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as file:
            json.dump(attrs.asdict(self), file)
        return descriptor

    @classmethod
    def read(cls, descriptor: int) -> Handover:
        """
        @param descriptor: the result of L{write} in the parent, as this process's own descriptor;
            it is closed.
        """
        with os.fdopen(descriptor, encoding="utf-8") as file:
            file.seek(0)
            return cls(**json.load(file))
