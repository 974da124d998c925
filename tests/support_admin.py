"""
Helpers for tests of administration: a server with clients, and an administrator.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from kaproto.admin.client import ControlClient
from kaproto.admin.factory import adminFactory
from kaproto.client import KeepAliveClientFactory
from kaproto.policies import Disable, Optional, Policy
from kaproto.rpc.protocol import connectionOf
from kaproto.rpc.serverconnection import ServerConnection
from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol
from tests.support import KEEPALIVE, ClockTestCase, FakeBackend, Wire
from tests.support_daemon import FakeDaemon

__all__ = ["AdminTestCase"]

_T = TypeVar("_T")


class AdminTestCase(ClockTestCase):
    """
    Base class for tests of an administrator's connection.

    @ivar daemon: the daemon that is administered.
    @ivar server: the factory for the daemon's clients.
    @ivar administrators: the factory for administrators with all rights.
    """

    def setUp(self) -> None:
        """
        Create a daemon.
        """
        super().setUp()
        self.daemon = self.makeDaemon(Optional(KEEPALIVE))

    def makeDaemon(self, policy: Policy) -> FakeDaemon:
        """
        @return: a daemon without clients.
        """
        self.server = KeepAliveServerFactory(policy, FakeBackend(), clock=self.clock)
        daemon = FakeDaemon(self.server)
        self.administrators = adminFactory(daemon)
        self.administrators.policy = Disable()
        return daemon

    def setTimeOfDay(self, seconds: float) -> None:
        """
        Set the time of day at the beginning of the test, in seconds since 1970.
        """
        wallClock = self.server.journal.wallClock
        wallClock._wall = lambda: seconds + self.clock.seconds()
        wallClock._offset = seconds

    def client(self) -> Wire[KeepAliveServerProtocol]:
        """
        Connect a client, which the test plays.
        """
        return self.accept(self.server)

    def connectionOf(self, wire: Wire[KeepAliveServerProtocol]) -> ServerConnection:
        """
        @return: the server's end of a client from L{client}.
        """
        return connectionOf(wire.protocol, ServerConnection)

    def openClient(self) -> ServerConnection:
        """
        Connect one of kaproto's clients, and open.

        @return: the server's end.
        """
        return connectionOf(self.pair(self.server).server, ServerConnection)

    def administrator(self, policy: Policy | None = None) -> Wire[KeepAliveServerProtocol]:
        """
        Connect an administrator, by default with all rights.
        """
        factory = adminFactory(self.daemon)
        factory.policy = Disable() if policy is None else policy
        return self.accept(factory)

    def control(self) -> ControlClient:
        """
        Connect the client of the C{kaproto} command.
        """
        client = KeepAliveClientFactory(clock=self.clock)
        client.startsOpen = True
        self.controlled = self.pair(self.administrators, client)
        return ControlClient(self.controlled.client, self.clock)

    def finish(self, running: Coroutine[Deferred[Any], Any, _T]) -> _T:
        """
        Run a coroutine of the L{ControlClient} until it ends.
        """
        result = Deferred.fromCoroutine(running)
        for _ in range(50):
            if result.called:
                break
            self.controlled.flush()
        return self.successResultOf(result)
