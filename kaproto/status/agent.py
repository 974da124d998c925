"""
Tells haproxy whether to send clients here (C{agent-check}).

It is answered with a line of words: C{ready up}, C{drain} while the server is drained, or
C{ready down #} and the reason while libvirtd cannot be opened.  C{ready} ends an earlier C{drain},
which would outlast the server's restart.
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
How many connections there may be; more are closed at once.
"""

_TIMEOUT: Final = 5.0
"""
Seconds that haproxy has to take the answer.
"""

_REASON_MAX: Final = 100


def agentLine(daemon: Daemon) -> bytes:
    """
    @return: what haproxy is told.
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
    One answer.
    """

    factory: AgentFactory

    def connectionMade(self) -> None:
        """
        Answer; what haproxy may have sent (C{agent-send}) is of no interest.
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
        # If it were closed here, bytes that were not read would have the answer thrown away.
        transport.loseWriteConnection()

    def timeoutConnection(self) -> None:
        """
        The other side has neither taken the answer nor closed.
        """
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The other side has closed.
        """
        self.factory.present -= 1
        self.setTimeout(None)


class AgentFactory(Factory):
    """
    Answers haproxy.

    @ivar present: how many connections there are.
    """

    noisy = False

    def __init__(self, daemon: Daemon) -> None:
        """
        @param daemon: what haproxy sends clients to.
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
