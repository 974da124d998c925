"""
Tests for L{kaproto.client.calls}.
"""

from __future__ import annotations

from types import NoneType
from typing import ParamSpec, TypeVar
from uuid import UUID

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from kaproto.client.calls import Call, DomainCall, Nothing, Version
from kaproto.wire import domains as wire
from kaproto.wire.structs import pack, unpack

_P = ParamSpec("_P")
_R = TypeVar("_R")

DOMAIN = wire.Domain("test", UUID(int=7), 1)


class Connection:
    """
    A connection with two procedures, which records calls.
    """

    hostname = Call(59, Nothing, str)
    listAll = Call(273, wire.ListAllDomains, NoneType)

    def __init__(self) -> None:
        self.performed: list[tuple[int, object]] = []

    def perform(self, call: Call[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[_R]:
        """
        Record a call.
        """
        self.performed.append((call.procedure, call.arguments(*args, **kwargs)))
        return succeed(call.result())


@attrs.frozen
class Domain:
    """
    A domain with one procedure.
    """

    connection: Connection
    identity: wire.Domain

    state = DomainCall(212, wire.DomainAndFlags, str)


class CallTests(SynchronousTestCase):
    """
    Tests for procedures that are declared as attributes.
    """

    def test_methods(self) -> None:
        """
        A declared procedure is a method whose arguments are the procedure's.
        """
        connection = Connection()
        self.assertEqual(self.successResultOf(connection.hostname()), "")
        self.assertIsNone(self.successResultOf(connection.listAll(flags=3)))
        self.successResultOf(Domain(connection, DOMAIN).state(5))
        self.assertEqual(
            connection.performed,
            [
                (59, Nothing()),
                (273, wire.ListAllDomains(flags=3)),
                (212, wire.DomainAndFlags(DOMAIN, 5)),
            ],
        )

    def test_wrongArguments(self) -> None:
        """
        Arguments that the procedure does not take raise a L{TypeError}.
        """
        self.assertRaises(TypeError, Connection().hostname, 1)

    def test_ofTheClass(self) -> None:
        """
        The class's attributes are the declarations themselves.
        """
        self.assertEqual(Connection.hostname, Call(59, Nothing, str))
        self.assertEqual(Domain.state, DomainCall(212, wire.DomainAndFlags, str))

    def test_nothing(self) -> None:
        """
        L{Nothing} is packed into zero bytes.
        """
        self.assertEqual(pack(Nothing()), b"")

    def test_version(self) -> None:
        """
        A version is converted to a dotted string.
        """
        version = unpack(Version, (12_008_001).to_bytes(8, "big"))
        self.assertEqual((version, str(version)), (Version(12_008_001), "12.8.1"))
