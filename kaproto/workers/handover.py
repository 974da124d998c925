"""
What a parent hands to a worker when it starts it: settings, and numbers of open files.
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
    What a worker is told.

    @ivar settings: the configuration file that says what the parent's settings are.
    @ivar worker: the worker's number, from 1.
    @ivar workers: how many workers there are.
    @ivar row: its row in the shared counts.
    @ivar rows: how many rows there are.
    @ivar room: how many clients it has files for; 0 for any number.
    @ivar counts: the file of the shared counts.
    @ivar channel: its end of the connection to the parent.
    @ivar sockets: those to accept on, by the name of their place.
    @ivar passed: how many sockets systemd has passed, which begin at 3.
    @ivar passedNames: the names of those, as C{LISTEN_FDNAMES} has them.
    @ivar reactor: the module that has the reactor to use.
    @ivar sampled: whether to measure the reactor's turns, for a status page.
    @ivar log: where the log goes, see L{kaproto.workers.logs.LogTarget}.
    """

    settings: str
    worker: int
    workers: int
    row: int
    rows: int
    room: int
    counts: int
    channel: int
    sockets: Mapping[str, Sequence[int]]
    passed: int
    passedNames: str
    reactor: str
    sampled: bool
    log: Mapping[str, Any]

    def write(self) -> int:
        """
        @return: a file in memory that has it.  Settings may hold a password, so nothing of this is
            on a command line or in an environment, which others can see.
        """
        descriptor = os.memfd_create("kaserver-worker")
        with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as file:
            json.dump(attrs.asdict(self), file)
        return descriptor

    @classmethod
    def read(cls, descriptor: int) -> Handover:
        """
        @param descriptor: the number of the file that L{write} has written; it is closed.
        """
        with os.fdopen(descriptor, encoding="utf-8") as file:
            file.seek(0)
            return cls(**json.load(file))
