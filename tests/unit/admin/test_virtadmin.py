"""
Tests for L{kaproto.admin.virtadmin}.

The bytes of calls and replies are libvirtd's and C{virt-admin}'s, with kaserver's names in them.
"""

from __future__ import annotations

from typing import Any

from kaproto import __version__
from kaproto.backends.machine import versionNumber
from kaproto.errors import ConnectionClosed, Disconnected
from kaproto.peer import Peer
from kaproto.policies import Mandatory
from kaproto.server import KeepAliveServerProtocol
from kaproto.wire.message import Message, Status
from kaproto.wire.programs import ADMIN_PROGRAM, PROGRAM_VERSION, AdminProcedure
from kaproto.wire.xdr import ARRAY_MAX, Packer, ParameterType, TypedParameter, Unpacker
from tests.support import KEEPALIVE, Wire, call, errorOf
from tests.support_admin import AdminTestCase

SERVER = bytes.fromhex("00000008") + b"kaserver"
ADMIN = bytes.fromhex("00000005") + b"admin\0\0\0"


def words(*numbers: int) -> bytes:
    """
    @return: numbers as XDR words.
    """
    return b"".join(number.to_bytes(4, "big") for number in numbers)


class VirtAdminTestCase(AdminTestCase):
    """
    A test case with a connection from C{virt-admin}.
    """

    def setUp(self) -> None:
        """
        Connect C{virt-admin}.
        """
        super().setUp()
        self.admin = self.administrator()

    def ask(self, procedure: int, payload: bytes = b"") -> Message:
        """
        @return: the reply to a call.
        """
        self.admin.feed(call(procedure, payload, program=ADMIN_PROGRAM))
        self.turns()
        return self.admin.takeOne()

    def answer(self, procedure: int, payload: bytes = b"") -> bytes:
        """
        @return: the payload of a successful reply.
        """
        reply = self.ask(procedure, payload)
        if reply.status != Status.OK:
            self.fail(str(errorOf(reply)))
        return reply.payload

    def assertFails(
        self, procedure: int, payload: bytes, code: int, domain: int, message: str
    ) -> None:
        """
        Check that a call is answered with this error.
        """
        self.assertEqual(errorOf(self.ask(procedure, payload)), (code, domain, 2, message))


class Many:
    """
    A client in a long list.
    """

    def __init__(self, number: int) -> None:
        self.peer = Peer(id=number)


class ConnectionTests(VirtAdminTestCase):
    """
    Tests for the connection.
    """

    def test_session(self) -> None:
        """
        C{virt-admin} opens, calls and closes, and its last call is answered before the connection
        ends.
        """
        self.assertEqual(self.answer(1, words(0)), b"")
        self.assertEqual(Unpacker(self.answer(3)).uint64(), versionNumber(__version__))
        self.assertEqual(self.answer(2), b"")
        self.assertTrue(self.admin.closing)
        self.admin.lose()
        self.assertIsInstance(
            self.successResultOf(self.admin.protocol.whenClosed()), ConnectionClosed
        )

    def test_neverPinged(self) -> None:
        """
        C{virt-admin} is not pinged, because a ping would make it abort.
        """
        self.answer(1, words(0))
        self.advance(120)
        self.assertEqual(self.admin.taken(), b"")
        self.assertFalse(self.admin.closing)

    def test_strangers(self) -> None:
        """
        A user who may not administer is refused when opening.  The connection stays open until
        C{virt-admin} closes it.
        """
        self.admin = self.administrator(Mandatory(KEEPALIVE))
        self.assertEqual(errorOf(self.ask(1, words(0)))[0], 9)
        self.assertEqual(errorOf(self.ask(2, b""))[0], 9)
        self.assertFalse(self.admin.closing)

    def test_unknown(self) -> None:
        """
        Unknown procedures and programs are answered with libvirtd's errors.
        """
        for procedure in (0, 21, 66):
            self.assertFails(procedure, b"", 39, 7, f"unknown procedure: {procedure}")
        reply = self.admin.ask(call(66))
        self.assertEqual(errorOf(reply)[3], "Cannot find program 536903814 version 1")

    def test_flags(self) -> None:
        """
        Flags are refused, and the error that C{virt-admin} prints names the function.
        """
        server, client = SERVER + words(4), SERVER + words(0, 1, 0, 0, 0, 4)
        for procedure, payload, function in [
            (1, words(4), "open"),
            (4, words(1, 4), "listServers"),
            (6, server, "workers"),
            (8, SERVER + words(1, 4), "listClients"),
            (9, SERVER + words(0, 1, 4), "lookupClient"),
            (10, client, "clientInfo"),
            (11, client, "closeClient"),
            (12, server, "clientLimits"),
            (13, SERVER + words(0, 4), "setClientLimits"),
            (14, words(4), "logOutputs"),
            (15, words(4), "logFilters"),
            (18, server, "updateTLSFiles"),
            (20, words(4), "shutdown"),
        ]:
            message = f"unsupported flags (0x4) in function {function}"
            self.assertFails(procedure, payload, 8, 62, message)


class ServerTests(VirtAdminTestCase):
    """
    Tests for servers and their parameters.
    """

    def test_list(self) -> None:
        """
        There are two servers, one of them for administrators; a call that asks only for the number
        gets that.
        """
        self.assertEqual(self.answer(4, words(1, 0)), words(2) + SERVER + ADMIN + words(2))
        self.assertEqual(self.answer(4, words(0, 0)), words(0, 2))

    def test_lookup(self) -> None:
        """
        A server is looked up by name in every call.
        """
        self.assertEqual(self.answer(5, SERVER + words(0)), SERVER)
        self.assertEqual(self.answer(5, ADMIN + words(7)), ADMIN)
        other = words(4) + b"nope"
        for procedure, rest in [
            (5, words(0)),
            (6, words(0)),
            (8, words(1, 0)),
            (9, words(0, 1, 0)),
            (10, words(0, 1, 0, 0, 0, 0)),
            (11, words(0, 1, 0, 0, 0, 0)),
            (12, words(0)),
            (13, words(0, 0)),
            (18, words(0)),
        ]:
            message = "Server not found: No server named 'nope'"
            self.assertFails(procedure, other + rest, 95, 7, message)

    def test_workers(self) -> None:
        """
        There is one thread, and no thread pool to configure.
        """
        parameters = Unpacker(self.answer(6, SERVER + words(0))).typedParameters()
        self.assertEqual({each.type for each in parameters}, {ParameterType.UINT})
        self.assertEqual(
            [(each.name, each.value) for each in parameters],
            [
                ("minWorkers", 1),
                ("maxWorkers", 1),
                ("nWorkers", 1),
                ("freeWorkers", 0),
                ("prioWorkers", 0),
                ("jobQueueDepth", 0),
            ],
        )
        self.assertFails(
            7,
            SERVER + words(0, 0),
            84,
            62,
            "Operation not supported: kaserver has one thread and no pool of workers",
        )

    def test_limits(self) -> None:
        """
        Limits can be changed while the server runs, and read back.  The administrators' server has
        its own.
        """
        parameter = Packer().typedParameters(
            [TypedParameter("nclients_max", 5, ParameterType.UINT)]
        )
        self.assertEqual(self.answer(13, SERVER + parameter.packed() + words(0)), b"")
        self.assertEqual(self.server.limits.maxClients, 5)
        self.client()
        found = Unpacker(self.answer(12, SERVER + words(0))).typedParameters()
        self.assertEqual(
            {each.name: each.value for each in found},
            {"nclients_max": 5, "nclients": 1, "nclients_unauth_max": 5, "nclients_unauth": 0},
        )
        own = {
            each.name: each.value
            for each in Unpacker(self.answer(12, ADMIN + words(0))).typedParameters()
        }
        limits = self.admin.protocol.factory.limits
        self.assertEqual((own["nclients"], own["nclients_max"]), (1, limits.maxClients))
        self.assertNotEqual(own["nclients_max"], 5)

    def test_log(self) -> None:
        """
        The log's output is shown, but cannot be changed.
        """
        self.assertEqual(self.answer(14, words(0)), words(8) + b"2:twistd" + words(1))
        self.assertEqual(self.answer(15, words(0)), words(0, 0))
        for procedure in (16, 17):
            error = errorOf(self.ask(procedure, words(1, 0, 0)))
            self.assertEqual(error[:3], (84, 62, 2))
            self.assertIn("twistd", error[3])

    def test_timeout(self) -> None:
        """
        A timeout to stop without clients is not supported.
        """
        self.assertEqual(errorOf(self.ask(19, words(300, 0)))[:2], (84, 62))

    def test_updateTLS(self) -> None:
        """
        Certificate files are reloaded, and problems with them are the error.
        """
        self.assertEqual(self.answer(18, SERVER + words(0)), b"")
        self.daemon.problems = ["no certificate in a.pem", "no rule"]
        self.assertFails(18, SERVER + words(0), 38, 7, "no certificate in a.pem; no rule")
        self.assertEqual(self.daemon.calls, [("reload",), ("reload",)])

    def test_shutdown(self) -> None:
        """
        The daemon stops after the call is answered.
        """
        self.admin.feed(call(20, words(0), program=ADMIN_PROGRAM))
        self.assertEqual(self.admin.takeOne().status, Status.OK)
        self.assertEqual(self.daemon.calls, [])
        self.turns()
        self.assertEqual(self.daemon.calls, [("stop",)])


class ClientTests(VirtAdminTestCase):
    """
    Tests for a server's clients.
    """

    def clientName(self, number: int, transport: int = 1) -> bytes:
        """
        @return: the id of a client as calls contain it, with an arbitrary time.
        """
        return SERVER + words(0, number, 0, 12345, transport)

    def test_list(self) -> None:
        """
        Clients are listed from the time they connect, with that time of day, and the array is
        followed by its length.
        """
        self.setTimeOfDay(1764125677)
        first: Wire[KeepAliveServerProtocol] = self.client()
        self.clock.advance(2.5)
        self.client()
        listed = self.answer(8, SERVER + words(1, 0))
        one = SERVER + words(0, 1, 0, 1764125677, 1)
        two = SERVER + words(0, 2, 0, 1764125679, 1)
        self.assertEqual(listed, words(2) + one + two + words(2))
        self.assertEqual(self.answer(8, SERVER + words(0, 0)), words(0, 2))
        first.lose()
        self.assertEqual(self.answer(8, SERVER + words(1, 0)), words(1) + two + words(1))

    def test_administrators(self) -> None:
        """
        Administrators are listed as clients of their own server.
        """
        listed = Unpacker(self.answer(8, ADMIN + words(1, 0)))
        self.assertEqual(listed.uint32(), 1)

    def test_many(self) -> None:
        """
        At most as many clients are listed as C{virt-admin} accepts, over several turns of the
        reactor.
        """
        self.server.clients = [  # type: ignore[assignment]
            Many(number) for number in range(ARRAY_MAX + 600)
        ]
        turns: list[float] = []
        callLater = self.clock.callLater

        def counting(delay: float, *call: Any) -> object:
            turns.append(delay)
            return callLater(delay, *call)

        self.patch(self.clock, "callLater", counting)
        self.admin = self.administrator()
        listed = self.answer(8, SERVER + words(1, 0))
        self.assertEqual((listed[:4], listed[-4:]), (words(ARRAY_MAX), words(ARRAY_MAX)))
        self.assertGreater(turns.count(0.0), 3)

    def test_lookup(self) -> None:
        """
        A client is looked up by its id.
        """
        self.client()
        found = self.answer(9, SERVER + words(0, 1, 0))
        self.assertEqual(found[:20], SERVER + words(0, 1))
        self.assertEqual(found[-4:], words(1))
        for procedure, payload in [
            (9, SERVER + words(0, 99, 0)),
            (10, self.clientName(99) + words(0)),
            (11, self.clientName(99) + words(0)),
        ]:
            message = "Client not found: No client with matching ID '99'"
            self.assertFails(procedure, payload, 96, 7, message)

    def test_info(self) -> None:
        """
        A client's data are typed parameters, libvirt's first.
        """
        self.openClient()
        parameters = Unpacker(self.answer(10, self.clientName(1) + words(0))).typedParameters()
        self.assertEqual([each.name for each in parameters][:3], ["readonly", "sock_addr", "phase"])

    def test_disconnect(self) -> None:
        """
        One client is disconnected, and the reason is recorded.
        """
        self.openClient()
        self.openClient()
        self.assertEqual(self.answer(11, self.clientName(1) + words(0)), b"")
        for pair in self._pairs:
            pair.flush()
        self.assertEqual([each.peer.id for each in self.server.connections], [2])
        (ending,) = self.server.journal.endings
        self.assertEqual((ending.who.id, ending.kind), (1, "disconnected"))
        reason = self.successResultOf(self._pairs[0].client.whenClosed())
        self.assertIn("end of file", str(reason))

    def test_disconnectOneself(self) -> None:
        """
        An administrator can disconnect itself.
        """
        self.admin.feed(call(11, ADMIN + words(0, 1, 0, 0, 0, 0), program=ADMIN_PROGRAM))
        self.assertTrue(self.admin.closing)
        self.admin.lose()
        self.assertIsInstance(self.successResultOf(self.admin.protocol.whenClosed()), Disconnected)


class ProcedureTests(AdminTestCase):
    """
    Tests for the set of procedures.
    """

    def test_all(self) -> None:
        """
        Every procedure of C{virt-admin} 11.3 is implemented.
        """
        program = self.administrator().protocol.factory.programs[ADMIN_PROGRAM]
        self.assertEqual(
            [each for each in range(30) if program.knows(each)],
            [int(each) for each in AdminProcedure],
        )
        self.assertEqual(program.version, PROGRAM_VERSION)
