"""
The server factory for administrators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kaproto.admin.control import ControlProgram
from kaproto.admin.operators import Operators
from kaproto.admin.virtadmin import AdminProgram
from kaproto.limits import Limits
from kaproto.program import Program
from kaproto.server import KeepAliveServerFactory
from kaproto.status.daemon import Daemon

__all__ = ["adminFactory"]

_LIMITS: Final = Limits(maxClients=100)


def adminFactory(
    daemon: Daemon, programs: Sequence[Program] | None = None
) -> KeepAliveServerFactory:
    """
    Make the factory that serves C{virt-admin} and C{kaproto}, on a UNIX socket.

    Its connections are open from the start, since neither client sends the remote program's
    C{CONNECT_OPEN}, and are never pinged, since neither can ask for keepalive.

    @param daemon: the daemon to administer.
    @param programs: the RPC programs for administrators, by default both programs of this process.
    """
    return KeepAliveServerFactory(
        Operators(),
        programs=[AdminProgram(daemon), ControlProgram(daemon)] if programs is None else programs,
        clock=daemon.factory.clock,
        limits=_LIMITS,
        startsOpen=True,
    )
