"""
Tells haproxy whether to send clients here (C{agent-check}).

The answer is one line: C{ready up}; C{drain} while the server is drained; or C{ready down #} and
the reason while libvirtd cannot be opened.  C{ready} ends an earlier C{drain}, which haproxy would
otherwise remember after the server's restart.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from kaproto.records.who import clean
from kaproto.status.daemon import Daemon, readiness

__all__ = ["CONNECTIONS_MAX", "AgentFactory", "agentLine"]

CONNECTIONS_MAX: Final = 100
"""
The most connections at a time; further ones are closed.
"""

_TIMEOUT: Final = 5.0
"""
Seconds that haproxy has to read the answer.
"""

_REASON_MAX: Final = 100


def agentLine(daemon: Daemon) -> bytes:
    """
    @return: the answer for haproxy.
    """
    if daemon.draining:
        return b"drain\n"
    problem = readiness(daemon)
    if problem is None:
        return b"ready up\n"
    reason = clean(problem)[:_REASON_MAX].encode("ascii", "replace").decode().replace("#", " ")
    return f"ready down #{reason}\n".encode()


class _Agent(Protocol, TimeoutMixin):
    """
    One connection from haproxy.
    """

    factory: AgentFactory

    def connectionMade(self) -> None:
        """
        Answer, and ignore the text that haproxy may send (C{agent-send}).
        """
        self.factory.present += 1
        self.callLater = self.factory.daemon.factory.clock.callLater  # type: ignore[assignment, method-assign]
        self.setTimeout(_TIMEOUT)
        Deferred.fromCoroutine(self._answer())

    async def _answer(self) -> None:
        daemon = self.factory.daemon
        await daemon.register.refresh()
        transport: Any = self.transport
        transport.write(agentLine(daemon))
        # Do not close here: with unread bytes in the socket, the kernel would reset the connection
        # and discard the answer.
        transport.loseWriteConnection()

    def timeoutConnection(self) -> None:
        """
        Abort, since haproxy has not closed in time.
        """
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection has ended.
        """
        self.factory.present -= 1
        self.setTimeout(None)


class AgentFactory(Factory):
    """
    Answers haproxy.

    @ivar present: the number of connections.
    """

    noisy = False

    def __init__(self, daemon: Daemon) -> None:
        """
        @param daemon: the server to which haproxy sends clients.
        """
        self.daemon = daemon
        self.present = 0

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """
        @return: a connection, unless there are too many.
        """
        if self.present >= CONNECTIONS_MAX:
            return None
        agent = _Agent()
        agent.factory = self
        return agent
