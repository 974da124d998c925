"""
Runs C{twistd}, and reports on the process when it gets a signal.

Usage: C{python -m tests.harness.soak.serve FILE MUTANT TWISTD-ARGUMENTS...}, where C{MUTANT} may be
empty.  C{SIGUSR1} appends a line of JSON to the file; C{SIGUSR2} a more thorough one, which takes
longer.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter, deque
from types import FrameType
from typing import Any, Final

from kaproto.logbounds import BOUNDS, Rate
from kaproto.records import endings

__all__ = ["main"]

_CONTAINERS: Final = (dict, list, set, deque)
_WATCHED: Final = ("kaproto.", "twisted.internet.", "twisted.protocols.")


_FACTORY: Final = "kaproto.server.KeepAliveServerFactory"

_factories: Final[list[Any]] = []


def _name(each: object) -> str:
    kind = type(each)
    return f"{kind.__module__}.{kind.__qualname__}"


def _look(*, thorough: bool) -> dict[str, Any]:
    """
    @param thorough: whether to collect garbage and count objects too, which delays the server.
    @return: the numbers of open files, timers, the reactor's readers and writers, connections, and
        watched connections; if thorough, also of all objects, of those of certain types, and of the
        entries of all containers.
    """
    from twisted.internet import reactor

    from kaproto.keepalive.monitor import Monitor

    found: dict[str, Any] = _count() if thorough or not _factories else {}
    return found | {
        # One of those listed is the folder that is being listed.
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,
        "timers": len(reactor.getDelayedCalls()),
        "selectables": len({*reactor.getReaders(), *reactor.getWriters()}),
        "watching": len(Monitor.of(reactor).pacemaker),
        "connected": sum(len(factory.connections) for factory in _factories),
    }


def _count() -> dict[str, Any]:
    """
    Count objects, including those that kaserver has frozen so that the collector skips them, and
    leave them frozen.
    """
    setAside = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    gc.unfreeze()
    everything = gc.get_objects()
    found = {
        "objects": len(everything),
        "types": Counter(filter(_isWatched, map(_name, everything))),
        "entries": _entries(everything),
    }
    _factories[:] = [each for each in everything if _name(each) == _FACTORY]
    if setAside:
        del everything
        gc.freeze()
    return found


def _isWatched(name: str) -> bool:
    return name.startswith(_WATCHED)


def _entries(everything: list[Any]) -> int:
    """
    @return: the number of entries in all containers, including those that the garbage collector
        does not track since they contain only numbers and text.
    """
    own = {id(everything)}
    total = 0
    for each in everything:
        for container in (each, *gc.get_referents(each)):
            if isinstance(container, _CONTAINERS) and id(container) not in own:
                own.add(id(container))
                total += len(container)
    return total


def main() -> None:
    """
    Add the defect of the mutant, if any, then run twistd.
    """
    path, mutant = sys.argv.pop(1), sys.argv.pop(1)
    if mutant:
        from tests.harness.soak.mutants import MUTANTS

        MUTANTS[mutant]()

    def tell(thorough: bool) -> None:
        line = json.dumps(_look(thorough=thorough)) + "\n"
        with open(path, "a", encoding="ascii") as file:
            file.write(line)

    def asked(number: int, _frame: FrameType | None) -> None:
        from twisted.internet import reactor

        reactor.callFromThread(tell, number == signal.SIGUSR2)  # type: ignore[attr-defined]

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, asked)

    # The latest endings are kept on purpose, up to a number that a soak takes long to reach.
    endings.KEPT = 0  # type: ignore[misc]
    # All clients connect from one address, and every logged death is counted.
    BOUNDS.perPeer = BOUNDS.overall = Rate(1_000_000, 1_000)
    BOUNDS.clear()

    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    main()
