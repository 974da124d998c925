"""
Tests for L{kaproto.keepalive.monitor}.
"""

from __future__ import annotations

import gc
import weakref
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.liveness import KeepAlive
from kaproto.keepalive.monitor import Monitor
from tests.support import freezeOlder
from tests.unit.keepalive.test_heartbeat import HeartbeatTestCase


class MonitorTests(HeartbeatTestCase):
    """
    Tests for what a clock's heartbeats share.
    """

    def test_shared(self) -> None:
        """
        All heartbeats on one clock share one pacemaker and one timer.
        """
        one, other = self.heartbeat(KeepAlive(1, 2)), self.heartbeat(KeepAlive(2, 2))
        self.assertIs(one.pacemaker, other.pacemaker)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertIsNot(Monitor.of(Clock()).pacemaker, one.pacemaker)
        one.stop()
        other.stop()

    def test_reactor(self) -> None:
        """
        The pacemaker is that of the transport's reactor, or else of the installed one.
        """
        from twisted.internet import reactor

        heartbeat = Heartbeat(self.transport, b"?")
        self.assertIs(heartbeat.pacemaker, Monitor.of(cast(IReactorTime, reactor)).pacemaker)
        self.transport.reactor = self.clock  # type: ignore[attr-defined]
        heartbeat = Heartbeat(self.transport, b"?")
        self.assertIs(heartbeat.pacemaker, Monitor.of(self.clock).pacemaker)

    def test_freed(self) -> None:
        """
        A clock and its pacemaker are freed with the last heartbeat.
        """
        freezeOlder(self)
        self.clock = Clock()
        heartbeat = self.heartbeat(KeepAlive(1, 2))
        heartbeat.stop()
        alive = weakref.ref(self.clock)
        del heartbeat, self.clock
        gc.collect()
        self.assertIsNone(alive())
