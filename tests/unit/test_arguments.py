"""
Tests for L{kaproto.arguments}, and for the constructors that use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.arguments import checkInstance, checkType
from kaproto.client import KeepAliveClientFactory, connect
from kaproto.keepalive.liveness import KeepAlive
from kaproto.limits import Limits
from kaproto.policies import Mandatory, Optional
from kaproto.server import KeepAliveServerFactory
from tests.support import Probe


class ArgumentsTests(SynchronousTestCase):
    """
    Tests for the errors about arguments of the wrong type.
    """

    def test_accepted(self) -> None:
        """
        Instances, including those of subclasses, are accepted.
        """
        checkType("flags", True, int)
        checkInstance("clock", Clock(), IReactorTime)

    def test_messages(self) -> None:
        """
        The error has the argument's name and value, and the intended call if it can be guessed.
        """
        other = "is not an instance of KeepAlive"
        for value, message in (
            (5, f"terms is 5, which {other}"),
            ((5, 2), f"terms is (5, 2), which {other}: write KeepAlive(5, 2)"),
            ({"interval": 5}, f"terms is {{'interval': 5}}, which {other}: write KeepAlive(in"),
            ("5", f"terms is '5', which {other}"),
            (None, f"terms is None, which {other}"),
            (KeepAlive, "terms is the class KeepAlive, not an instance: write KeepAlive()"),
        ):
            error = self.assertRaises(TypeError, checkType, "terms", value, KeepAlive)
            self.assertTrue(str(error).startswith(message), error)

    def test_constructors(self) -> None:
        """
        The policies, the factories and C{connect} check their arguments.
        """
        clock = Clock()
        cases: tuple[tuple[Callable[..., Any], dict[str, Any], str], ...] = (
            (Mandatory, {"terms": 5}, "terms is 5"),
            (Optional, {"terms": (5, 5)}, "write KeepAlive(5, 5)"),
            (KeepAliveServerFactory, {"limits": {"maxClients": 3}}, "write Limits(maxClients=3)"),
            (KeepAliveServerFactory, {"limits": Limits}, "limits is the class Limits"),
            (KeepAliveServerFactory, {"clock": 5}, "clock is 5"),
            (KeepAliveServerFactory, {"accessControl": "tls"}, "accessControl is 'tls'"),
            (KeepAliveServerFactory, {"programs": Probe()}, "write programs=[...]"),
            (KeepAliveClientFactory, {"keepAlive": (1, 2)}, "write KeepAlive(1, 2)"),
            (KeepAliveClientFactory, {"name": 5}, "name is 5"),
            (KeepAliveClientFactory, {"flags": "ro"}, "flags is 'ro'"),
            (connect, {"reactor": None, "uri": "x"}, "reactor is None"),
            (connect, {"reactor": clock, "uri": b"x"}, "uri is b'x'"),
        )
        for make, arguments, message in cases:
            error = self.assertRaises(TypeError, make, **arguments)
            self.assertIn(message, str(error))
