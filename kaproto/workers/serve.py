"""
The process of a worker: C{python -m kaproto.workers.serve FD}, where FD is the descriptor of an
open file with a L{Handover}.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from twisted.python.usage import UsageError

from kaproto.workers.handover import Handover

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """
    Serve until the parent sends a signal or is gone.

    @return: the exit code.
    """
    handover = Handover.read(int(arguments[1]))
    # Ctrl-C in a terminal also reaches the parent, which then stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Twisted reads this when its endpoints are first imported.
    os.environ |= {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(handover.passed),
        "LISTEN_FDNAMES": handover.passedNames,
    }
    import_module(handover.reactor).install()
    from twisted.internet import reactor

    from kaproto.workers.worker import Worker

    try:
        worker = Worker(handover, reactor)
    except UsageError as error:
        sys.stderr.write(f"kaserver: worker {handover.worker}: {error}\n")
        return 1
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
