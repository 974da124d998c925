"""
What the tests of administration stand on: a server with clients, and an administrator.
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
    A test of an administrator's connection.

    @ivar daemon: what is administered.
    @ivar server: the factory of its clients.
    @ivar administrators: the factory of administrators who may do everything.
    """

    def setUp(self) -> None:
        """
        Have a server.
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
        Have the test begin at this time, in seconds since 1970.
        """
        wallClock = self.server.journal.wallClock
        wallClock._wall = lambda: seconds + self.clock.seconds()
        wallClock._offset = seconds

    def client(self) -> Wire[KeepAliveServerProtocol]:
        """
        Connect a client to the server.
        """
        return self.accept(self.server)

    def connectionOf(self, wire: Wire[KeepAliveServerProtocol]) -> ServerConnection:
        """
        @return: the connection of L{client}.
        """
        return connectionOf(wire.protocol, ServerConnection)

    def openClient(self) -> ServerConnection:
        """
        Connect a client of ours that opens.

        @return: the server's end.
        """
        return connectionOf(self.pair(self.server).server, ServerConnection)

    def administrator(self, policy: Policy | None = None) -> Wire[KeepAliveServerProtocol]:
        """
        Connect an administrator, who may do what the policy says, by default everything.
        """
        factory = adminFactory(self.daemon)
        factory.policy = Disable() if policy is None else policy
        return self.accept(factory)

    def control(self) -> ControlClient:
        """
        Connect C{kaproto}.
        """
        client = KeepAliveClientFactory(clock=self.clock)
        client.startsOpen = True
        self.controlled = self.pair(self.administrators, client)
        return ControlClient(self.controlled.client, self.clock)

    def finish(self, running: Coroutine[Deferred[Any], Any, _T]) -> _T:
        """
        Let a coroutine of L{control}'s run to its end.
        """
        result = Deferred.fromCoroutine(running)
        for _ in range(50):
            if result.called:
                break
            self.controlled.flush()
        return self.successResultOf(result)
