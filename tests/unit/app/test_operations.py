"""
Tests for L{kaproto.app.operations}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.admin.factory import adminFactory
from kaproto.app.listeners import serverEndpoint
from kaproto.app.operations import adminEndpoint, adminPlace, agentPlace, statusPlace
from kaproto.server import KeepAliveServerFactory
from kaproto.status.agent import AgentFactory
from kaproto.status.site import StatusFactory
from tests.support_daemon import FakeDaemon


class AdminTests(SynchronousTestCase):
    """
    Tests for C{--admin}.
    """

    def test_path(self) -> None:
        """
        A path, absolute or relative, becomes a UNIX socket with mode 600; an endpoint string can
        set another mode.
        """
        for description, path, mode in [
            ("/x/y", "/x/y", 0o600),
            ("/x/a:b", "/x/a:b", 0o600),
            ("y", f"{Path.cwd()}/y", 0o600),
            ("./a:b", f"{Path.cwd()}/a:b", 0o600),
            ("x/y", f"{Path.cwd()}/x/y", 0o600),
            ("unix:/x/y", "/x/y", 0o600),
            ("unix:/x/y:mode=660", "/x/y", 0o660),
        ]:
            endpoint = cast(Any, adminEndpoint(MemoryReactorClock(), description))
            self.assertEqual((endpoint._address, endpoint._mode), (path, mode))

    def test_others(self) -> None:
        """
        Endpoints other than UNIX sockets are refused.
        """
        for description in ("tcp:1", "libvirttls:1", "nonsense:", "16509", ""):
            with self.assertRaisesRegex(ValueError, "UNIX socket only"):
                adminEndpoint(MemoryReactorClock(), description)

    def test_place(self) -> None:
        """
        The place has the name of its flag, and must not be exposed.
        """
        clock = MemoryReactorClock()
        factory = adminFactory(FakeDaemon(KeepAliveServerFactory(clock=clock)))
        place = adminPlace("/x/y", adminEndpoint(clock, "/x/y"), factory)
        self.assertEqual((place.flag, place.factory), ("--admin=/x/y", factory))
        self.assertFalse(place.exposable)


class AgentTests(SynchronousTestCase):
    """
    Tests for C{--agent}.
    """

    def test_place(self) -> None:
        """
        Other machines may connect to the agent.
        """
        clock = MemoryReactorClock()
        factory = AgentFactory(FakeDaemon(KeepAliveServerFactory(clock=clock)))
        place = agentPlace("tcp:1", serverEndpoint(clock, "tcp:1"), factory)
        self.assertEqual((place.flag, place.exposable), ("--agent=tcp:1", True))


class StatusTests(SynchronousTestCase):
    """
    Tests for C{--status}.
    """

    def test_place(self) -> None:
        """
        Other machines may connect to the status page only with C{--insecure}.
        """
        clock = MemoryReactorClock()
        factory = StatusFactory(FakeDaemon(KeepAliveServerFactory(clock=clock)))
        endpoint = serverEndpoint(clock, "tcp:1")
        for insecure in (False, True):
            place = statusPlace("tcp:1", endpoint, factory, insecure=insecure)
            self.assertEqual((place.flag, place.exposable), ("--status=tcp:1", insecure))
            self.assertNotIn("--auth", place.remedy)
