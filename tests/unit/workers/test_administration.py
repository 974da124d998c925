"""
Tests for L{kaproto.workers.administration}.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, cast

from twisted.internet.defer import Deferred

from kaproto.admin.client import ControlClient
from kaproto.admin.controltypes import (
    ControlProcedure,
    Disconnecting,
    Page,
    Which,
)
from kaproto.admin.factory import adminFactory
from kaproto.admin.types import (
    ClientCall,
    ClientLookup,
    ClientName,
    Parameters,
    ServerCall,
    ServerListOptions,
    ServerName,
    ServerParameters,
)
from kaproto.client import KeepAliveClientFactory
from kaproto.errors import RemoteError
from kaproto.policies import Disable
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.programs import AdminProcedure
from kaproto.wire.structs import pack, unpack
from kaproto.wire.xdr import ParameterType, TypedParameter, Unpacker
from tests.support_workers import SERVER, TeamTestCase


class ControlTests(TeamTestCase):
    """
    Tests for the C{kaproto} command on a server with workers.
    """

    def test_lists(self) -> None:
        """
        Lists have the clients of all workers, and each client is shown by its own worker.
        """
        listed = self.document(ControlProcedure.LIST, Page(0))
        self.assertEqual([each["id"] for each in listed], [4, 5])
        self.assertEqual(self.document(ControlProcedure.LIST, Page(5)), [])
        (shown,) = self.document(ControlProcedure.SHOW, Which(5))
        self.assertEqual(shown["id"], 5)
        for nobody in (6, 9):
            call = self.control_.callReceived
            connection = cast(KeepAliveServerProtocol, self.caller)
            with self.assertRaises(RemoteError):
                result = call(connection, ControlProcedure.SHOW, pack(Which(nobody)))
                self.failureResultOf(cast(Deferred[bytes], result)).raiseException()

    def test_disconnect(self) -> None:
        """
        A client's own worker disconnects it.
        """
        self.call(self.control_, ControlProcedure.DISCONNECT, Disconnecting(5, "why"))
        self.assertIsNone(self.clients[0].closing.reason)
        self.assertIn("why", str(self.clients[1].closing.reason))

    def test_status(self) -> None:
        """
        The status has the sums of all workers, and a list of the workers.
        """
        (status,) = self.document(ControlProcedure.STATUS)
        self.assertEqual((status["accepted"], status["clients"]), (2, 2))
        self.assertEqual(status["workers"], [{"pid": 1, "clients": 1, "leaving": False}] * 2)

    def test_replace(self) -> None:
        """
        C{REPLACE} returns the number of replaced workers, or an error if it cannot replace them.
        """
        self.assertEqual(self.document(ControlProcedure.REPLACE), [2])
        connection = cast(KeepAliveServerProtocol, self.caller)
        answer = cast(
            Coroutine[Deferred[Any], Any, bytes],
            self.control_.callReceived(connection, ControlProcedure.REPLACE, b""),
        )
        failure = self.failureResultOf(Deferred.fromCoroutine(answer), RemoteError)
        self.assertIn("once is enough", str(failure.value))

    def test_replaceByClient(self) -> None:
        """
        L{ControlClient.replace} returns the number of replaced workers.
        """
        factory = adminFactory(self.parent, [self.control_, self.admin])
        factory.policy = Disable()
        client = KeepAliveClientFactory(clock=self.clock)
        client.startsOpen = True
        self.controlled = self.pair(factory, client)
        control = ControlClient(self.controlled.client, self.clock)
        self.assertEqual(self.finish(control.replace()), 2)


class AdminTests(TeamTestCase):
    """
    Tests for C{virt-admin} on a server with workers.
    """

    def test_list(self) -> None:
        """
        Lists and counts have the clients of all workers.
        """
        which = AdminProcedure.SERVER_LIST_CLIENTS
        unpacker = Unpacker(self.call(self.admin, which, ServerListOptions(SERVER, 1, 0)))
        self.assertEqual(unpacker.uint32(), 2)
        answer = self.call(self.admin, which, ServerListOptions(SERVER, 0, 0))
        self.assertEqual(answer, b"\0\0\0\0\0\0\0\2")
        own = ServerListOptions(ServerName("admin"), 0, 0)
        self.assertEqual(self.call(self.admin, which, own)[:4], b"\0\0\0\0")

    def test_client(self) -> None:
        """
        A client's own worker looks it up, shows it and closes it; the parent does so for
        administrators.
        """
        which = AdminProcedure.SERVER_LOOKUP_CLIENT
        found = unpack(ClientName, self.call(self.admin, which, ClientLookup(SERVER, 5, 0)))
        self.assertEqual(found.id, 5)
        info = self.call(self.admin, AdminProcedure.CLIENT_GET_INFO, ClientCall(found, 0))
        self.assertIn("phase", [each.name for each in unpack(Parameters, info).parameters])
        self.call(self.admin, AdminProcedure.CLIENT_CLOSE, ClientCall(found, 0))
        self.assertIsNotNone(self.clients[1].closing.reason)
        connection = cast(KeepAliveServerProtocol, self.caller)
        with self.assertRaises(RemoteError):
            self.admin.callReceived(
                connection, which, pack(ClientLookup(ServerName("admin"), 5, 0))
            )

    def test_limits(self) -> None:
        """
        Limits are set in all workers, and shown with the sums of their clients.
        """
        parameters = [TypedParameter("nclients_max", 7, ParameterType.UINT)]
        which = AdminProcedure.SERVER_SET_CLIENT_LIMITS
        self.call(self.admin, which, ServerParameters(SERVER, parameters, 0))
        factories = [self.server, *(each.factory for each in self.daemons)]
        self.assertEqual([each.limits.maxClients for each in factories], [7] * 3)
        which = AdminProcedure.SERVER_GET_CLIENT_LIMITS
        answer = unpack(Parameters, self.call(self.admin, which, ServerCall(SERVER, 0)))
        found = {each.name: each.value for each in answer.parameters}
        self.assertEqual((found["nclients"], found["nclients_max"]), (2, 7))
        answer = unpack(
            Parameters, self.call(self.admin, which, ServerCall(ServerName("admin"), 0))
        )
        self.assertEqual(len(answer.parameters), 4)
        self.call(
            self.admin,
            AdminProcedure.SERVER_SET_CLIENT_LIMITS,
            ServerParameters(ServerName("admin"), [], 0),
        )
