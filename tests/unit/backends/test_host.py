"""
Tests for L{kaproto.backends.host}.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto import __version__
from kaproto.backends.host import (
    CALLBACKS_MAX,
    DOMAIN_NAME,
    DOMAIN_UUID,
    HOST_NAME,
    EmbeddedHost,
    versionNumber,
)
from kaproto.errors import ConnectionClosed, PeerFlooded, RemoteError
from kaproto.interfaces import IBackend, ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.wire.programs import Feature, Procedure
from kaproto.wire.xdr import Packer, Unpacker, XDRError

DOMAIN = Packer().string(DOMAIN_NAME).fixed(DOMAIN_UUID.bytes).int32(1).packed()
STRANGER = Packer().string(DOMAIN_NAME).fixed(bytes(16)).int32(1).packed()
FLAGS = b"\0\0\0\0"


class FakeConnection:
    """
    A connection that keeps the events it is to send.
    """

    congested = False

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        self.reason: Exception | None = None

    def sendEvent(self, program: int, procedure: int, payload: bytes) -> None:
        """
        Keep the callback's ID and the event.
        """
        assert (program, procedure) == (0x20008086, 318)
        unpacker = Unpacker(payload)
        callback = unpacker.int32()
        assert unpacker.fixed(len(DOMAIN)) == DOMAIN
        self.events.append((callback, unpacker.int32()))
        assert unpacker.int32() == 0

    def disconnect(self, reason: Exception) -> None:
        """
        Keep the reason.
        """
        self.reason = reason


class HostTestCase(SynchronousTestCase):
    """
    Calls an embedded host.
    """

    def setUp(self) -> None:
        """
        Make a host.
        """
        self.host = EmbeddedHost()

    def open(self, name: str = "", flags: int = 0, peer: Peer | None = None) -> ISession:
        """
        Open a session.
        """
        return self.host.open(Peer() if peer is None else peer, OpenRequest(name, flags))

    def ask(
        self, procedure: int, payload: bytes = b"", session: ISession | None = None
    ) -> Unpacker:
        """
        @return: the answer to a call.
        """
        self.assertTrue(self.host.knows(procedure))
        answer = (self.open() if session is None else session).callReceived(procedure, payload)
        assert isinstance(answer, bytes)
        return Unpacker(answer)

    def fail(  # type: ignore[override] # trial's own is not used here
        self, procedure: int, payload: bytes, session: ISession | None = None
    ) -> tuple[int, int, str]:
        """
        @return: code, domain and message of the error that answers a call.
        """
        error = self.assertRaises(RemoteError, self.ask, procedure, payload, session)
        return error.code, error.domain, error.message


class VersionTests(SynchronousTestCase):
    """
    Versions as libvirt counts them.
    """

    def test_number(self) -> None:
        """
        A version is one number: a million for each major, a thousand for each minor version.
        """
        for version, number in {
            "1.2.3": 1002003,
            "0.1.0": 1000,
            "12.34.56.dev7": 12034056,
            "1.2.3rc1": 1002003,
        }.items():
            self.assertEqual(versionNumber(version), number)
        self.assertGreater(versionNumber(__version__), 0)


class OpenTests(HostTestCase):
    """
    Opening the host.
    """

    def test_interfaces(self) -> None:
        """
        It is a backend with domain events, and opens sessions, which are never busy.
        """
        verifyObject(IBackend, self.host)
        self.assertEqual(self.host.features, {Feature.REMOTE_EVENT_CALLBACK})
        self.assertEqual(str(self.host), "embedded host")
        session = self.open()
        verifyObject(ISession, session)
        self.assertTrue(session.idle)

    def test_names(self) -> None:
        """
        A client may open the test driver's name, with any parameters, or no name.
        """
        for name, uri in (
            ("", HOST_NAME),
            (HOST_NAME, HOST_NAME),
            (f"{HOST_NAME}?foo=bar", f"{HOST_NAME}?foo=bar"),
        ):
            session = self.open(name)
            self.assertEqual(self.ask(Procedure.CONNECT_GET_URI, session=session).string(), uri)

    def test_otherNames(self) -> None:
        """
        Any other name has no driver, and the error says what there is.
        """
        for name in ("qemu:///system", "foo:///x", "test:///other", f"{HOST_NAME}s"):
            error = self.assertRaises(RemoteError, self.open, name)
            self.assertEqual((error.code, error.domain), (5, 0))
            self.assertEqual(
                error.message,
                f"no connection driver available for {name}; this server has test:///default",
            )

    def test_knows(self) -> None:
        """
        It knows what it can answer and nothing else.
        """
        for procedure in (1, 2, 5, 60, 66, 318, 360, 362, 0, -1, 9999):
            self.assertFalse(self.host.knows(procedure), procedure)


class MachineTests(HostTestCase):
    """
    What the host says of the machine.
    """

    def test_strings(self) -> None:
        """
        The type is none of libvirt's, and the name the machine's.
        """
        self.assertEqual(self.ask(Procedure.CONNECT_GET_TYPE).string(), "kaproto")
        self.assertEqual(self.ask(Procedure.CONNECT_GET_HOSTNAME).string(), socket.gethostname())

    def test_versions(self) -> None:
        """
        The versions of the hypervisor and of the library are this package's.
        """
        for procedure in (Procedure.CONNECT_GET_VERSION, Procedure.CONNECT_GET_LIB_VERSION):
            self.assertEqual(self.ask(procedure).uint64(), versionNumber(__version__))

    def test_secure(self) -> None:
        """
        A connection is secure if nobody in between can read it.
        """
        for transport, secure in (("tcp", 0), ("tls", 1), ("unix", 1)):
            session = self.open(peer=Peer(transport=transport))
            answer = self.ask(Procedure.CONNECT_IS_SECURE, session=session)
            self.assertEqual(answer.int32(), secure)

    def test_nodeInfo(self) -> None:
        """
        Architecture, memory and CPUs are true; the CPUs are cores of one socket.
        """
        answer = self.ask(Procedure.NODE_GET_INFO)
        self.assertEqual(answer.chars(32).rstrip(b"\0").decode(), os.uname().machine)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.assertEqual(answer.uint64(), memory // 1024)
        cpus = os.cpu_count()
        self.assertEqual([answer.int32() for _number in range(6)], [cpus, 0, 1, 1, cpus, 1])
        self.assertRaises(XDRError, answer.int32)

    def test_longModel(self) -> None:
        """
        An architecture that is longer than its field is cut, and still ends with a zero.
        """
        self.patch(os, "uname", lambda: os.uname_result(("", "", "", "", "m" * 40)))
        self.assertEqual(self.ask(Procedure.NODE_GET_INFO).chars(32), b"m" * 31 + b"\0")

    def test_capabilities(self) -> None:
        """
        The capabilities are XML with the architecture and the topology.
        """
        document = ET.fromstring(self.ask(Procedure.CONNECT_GET_CAPABILITIES).string())
        self.assertEqual(document.findtext("host/cpu/arch"), os.uname().machine)
        topology = document.find("host/cpu/topology")
        assert topology is not None
        self.assertEqual(topology.get("cores"), str(os.cpu_count()))


class DomainTests(HostTestCase):
    """
    The domain C{test}.
    """

    def state(self, session: ISession | None = None) -> tuple[int, int]:
        """
        @return: the domain's state and the reason.
        """
        answer = self.ask(Procedure.DOMAIN_GET_STATE, DOMAIN + FLAGS, session)
        return answer.int32(), answer.int32()

    def test_lookup(self) -> None:
        """
        The domain is found by ID, by name and by UUID.
        """
        for procedure, payload in (
            (Procedure.DOMAIN_LOOKUP_BY_ID, Packer().int32(1).packed()),
            (Procedure.DOMAIN_LOOKUP_BY_NAME, Packer().string("test").packed()),
            (Procedure.DOMAIN_LOOKUP_BY_UUID, DOMAIN_UUID.bytes),
        ):
            self.assertEqual(self.ask(procedure, payload).fixed(len(DOMAIN)), DOMAIN)

    def test_notFound(self) -> None:
        """
        Any other domain is not found, by whatever it is named, and the error says which there is.
        """
        for procedure, payload, named in (
            (Procedure.DOMAIN_LOOKUP_BY_ID, Packer().int32(2).packed(), "ID 2"),
            (Procedure.DOMAIN_LOOKUP_BY_NAME, Packer().string("x" * 999).packed(), "name 'xxx"),
            (Procedure.DOMAIN_LOOKUP_BY_UUID, bytes(16), "UUID 00000000-"),
            (Procedure.DOMAIN_GET_INFO, STRANGER, "UUID 00000000-"),
            (Procedure.DOMAIN_GET_STATE, STRANGER + FLAGS, "UUID 00000000-"),
            (Procedure.DOMAIN_GET_XML_DESC, STRANGER + FLAGS, "UUID 00000000-"),
            (Procedure.DOMAIN_GET_OS_TYPE, STRANGER, "UUID 00000000-"),
            (Procedure.DOMAIN_GET_AUTOSTART, STRANGER, "UUID 00000000-"),
            (Procedure.DOMAIN_IS_ACTIVE, STRANGER, "UUID 00000000-"),
            (Procedure.DOMAIN_SUSPEND, STRANGER, "UUID 00000000-"),
            (Procedure.DOMAIN_RESUME, STRANGER, "UUID 00000000-"),
        ):
            code, domain, message = self.fail(procedure, payload)
            self.assertEqual((code, domain), (42, 12))
            self.assertIn(f"no domain with the {named}", message)
            self.assertTrue(message.endswith("this server has test"))
            self.assertLess(len(message), 200)

    def test_listed(self) -> None:
        """
        The list can be narrowed by each of libvirt's groups of flags.
        """
        for flags, running, paused in (
            (0, 1, 1),
            (1, 1, 1),  # active
            (2, 0, 0),  # inactive
            (3, 1, 1),
            (4, 1, 1),  # persistent
            (8, 0, 0),  # transient
            (16, 1, 0),  # running
            (32, 0, 1),  # paused
            (16 | 32, 1, 1),
            (64 | 128, 0, 0),  # shut off, other
            (1 | 8, 0, 0),
            (256, 0, 0),
            (512, 1, 1),  # without managed save image
            (1024, 0, 0),
            (2048, 1, 1),  # without autostart
            (4096, 0, 0),
            (8192, 1, 1),  # without snapshots
            (16384, 0, 0),
            (32768, 1, 1),  # without checkpoints
        ):
            for change, listed in ((None, running), (Procedure.DOMAIN_SUSPEND, paused)):
                self.setUp()
                if change is not None:
                    self.ask(change, DOMAIN)
                payload = Packer().int32(1).uint32(flags).packed()
                answer = self.ask(Procedure.CONNECT_LIST_ALL_DOMAINS, payload)
                self.assertEqual(answer.uint32(), listed, flags)
                if listed:
                    self.assertEqual(answer.fixed(len(DOMAIN)), DOMAIN)
                self.assertEqual(answer.uint32(), listed)

    def test_counted(self) -> None:
        """
        Who only wants the number of domains gets no domains.
        """
        payload = Packer().int32(0).uint32(0).packed()
        answer = self.ask(Procedure.CONNECT_LIST_ALL_DOMAINS, payload)
        self.assertEqual((answer.uint32(), answer.uint32()), (0, 1))
        self.assertRaises(XDRError, self.ask, Procedure.CONNECT_LIST_ALL_DOMAINS, FLAGS)

    def test_facts(self) -> None:
        """
        It runs, with 1 GiB and one CPU; it is active and persistent, and does not start by
        itself.
        """
        info = self.ask(Procedure.DOMAIN_GET_INFO, DOMAIN)
        self.assertEqual(
            (info.int32(), info.uint64(), info.uint64(), info.int32(), info.uint64()),
            (1, 1048576, 1048576, 1, 0),
        )
        self.assertEqual(self.ask(Procedure.DOMAIN_GET_OS_TYPE, DOMAIN).string(), "hvm")
        for procedure, answer in (
            (Procedure.DOMAIN_IS_ACTIVE, 1),
            (Procedure.DOMAIN_IS_PERSISTENT, 1),
            (Procedure.DOMAIN_GET_AUTOSTART, 0),
            (Procedure.DOMAIN_HAS_MANAGED_SAVE_IMAGE, 0),
        ):
            self.assertEqual(self.ask(procedure, DOMAIN + FLAGS).int32(), answer)

    def test_description(self) -> None:
        """
        Its XML has the same name, UUID, ID and memory.
        """
        text = self.ask(Procedure.DOMAIN_GET_XML_DESC, DOMAIN + FLAGS).string()
        document = ET.fromstring(text)
        self.assertEqual(document.get("id"), "1")
        self.assertEqual(document.findtext("name"), DOMAIN_NAME)
        self.assertEqual(document.findtext("uuid"), str(DOMAIN_UUID))
        self.assertEqual(document.findtext("memory"), "1048576")

    def test_suspendAndResume(self) -> None:
        """
        Suspended by one connection it is paused for all, and runs again when another resumes it.
        """
        one, other = self.open(), self.open()
        self.assertEqual(self.state(other), (1, 1))
        self.ask(Procedure.DOMAIN_SUSPEND, DOMAIN, one)
        self.assertEqual(self.state(other), (3, 1))
        self.assertEqual(self.ask(Procedure.DOMAIN_GET_INFO, DOMAIN, other).int32(), 3)
        self.ask(Procedure.DOMAIN_RESUME, DOMAIN, other)
        self.assertEqual(self.state(one), (1, 5))

    def test_wrongState(self) -> None:
        """
        A paused domain cannot be suspended, nor a running one resumed.
        """
        for procedure, state in (
            (Procedure.DOMAIN_RESUME, "paused"),
            (Procedure.DOMAIN_SUSPEND, "running"),
        ):
            if state == "running":
                self.ask(Procedure.DOMAIN_SUSPEND, DOMAIN)
            code, domain, message = self.fail(procedure, DOMAIN)
            self.assertEqual((code, domain), (55, 12))
            self.assertEqual(
                message, f"Requested operation is not valid: domain 'test' is not {state}"
            )

    def test_readOnly(self) -> None:
        """
        A read-only connection changes nothing, and reads all it likes.
        """
        session = self.open(flags=1)
        for procedure, function in (
            (Procedure.DOMAIN_SUSPEND, "virDomainSuspend"),
            (Procedure.DOMAIN_RESUME, "virDomainResume"),
        ):
            code, _domain, message = self.fail(procedure, DOMAIN, session)
            self.assertEqual(code, 29)
            self.assertEqual(message, f"operation forbidden: read only access prevents {function}")
        self.assertEqual(self.state(session), (1, 1))


class EventTests(HostTestCase):
    """
    Domain events.
    """

    def connect(self) -> tuple[ISession, FakeConnection]:
        """
        @return: an open session, and the connection that it sends to.
        """
        session, connection = self.open(), FakeConnection()
        session.opened(connection)
        return session, connection

    def register(self, session: ISession, event: int = 0, filtered: bytes | None = None) -> int:
        """
        @return: the callback's ID.
        """
        packer = Packer().int32(event).uint32(filtered is not None).fixed(filtered or b"")
        return self.ask(
            Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, packer.packed(), session
        ).int32()

    def deregister(self, session: ISession, callback: int) -> None:
        """
        Deregister a callback.
        """
        payload = Packer().int32(callback).packed()
        self.ask(Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, payload, session)

    def change(self, *procedures: int) -> None:
        """
        Suspend or resume from another connection.
        """
        session = self.open()
        for procedure in procedures:
            self.ask(procedure, DOMAIN, session)

    def test_lifecycle(self) -> None:
        """
        Every lifecycle callback of every connection hears of each change, for the domain or for
        all domains; those of other events hear nothing.
        """
        one, first = self.connect()
        other, second = self.connect()
        _silent, third = self.connect()
        callbacks = [
            self.register(one),
            self.register(one, 1),
            self.register(one, 0, DOMAIN),
            self.register(other),
        ]
        self.assertEqual(callbacks, [0, 1, 2, 0])
        self.change(Procedure.DOMAIN_SUSPEND, Procedure.DOMAIN_RESUME)
        self.assertEqual(first.events, [(0, 3), (2, 3), (0, 4), (2, 4)])
        self.assertEqual(second.events, [(0, 3), (0, 4)])
        self.assertEqual(third.events, [])

    def test_deregistered(self) -> None:
        """
        A callback that was deregistered hears no more, and its ID is not given out again.
        """
        session, connection = self.connect()
        for callback in (0, 1):
            self.assertEqual(self.register(session), callback)
        self.deregister(session, 0)
        self.change(Procedure.DOMAIN_SUSPEND)
        self.deregister(session, 1)
        self.change(Procedure.DOMAIN_RESUME)
        self.assertEqual(connection.events, [(1, 3)])
        self.assertEqual(self.host.listening, set())
        self.assertEqual(self.register(session), 2)

    def test_unknownCallback(self) -> None:
        """
        To deregister a callback that is not registered is an error, as is one for another domain.
        """
        session, _connection = self.connect()
        self.register(session)
        code, domain, message = self.fail(
            Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY,
            Packer().int32(7).packed(),
            session,
        )
        self.assertEqual((code, domain), (8, 12))
        self.assertEqual(message, "invalid argument: there is no event callback 7")
        error = self.assertRaises(RemoteError, self.register, session, 0, STRANGER)
        self.assertEqual(error.code, 42)

    def test_tooMany(self) -> None:
        """
        A connection has a bounded number of callbacks.
        """
        session, _connection = self.connect()
        for _number in range(CALLBACKS_MAX):
            self.register(session)
        error = self.assertRaises(RemoteError, self.register, session)
        self.assertEqual(error.code, 9)
        self.assertIn("64 event callbacks", error.message)
        self.deregister(session, 5)
        self.register(session)

    def test_closed(self) -> None:
        """
        A connection that is closed, or not open yet, is sent nothing.
        """
        session, connection = self.connect()
        self.register(session)
        session.closed(ConnectionClosed("enough"))
        self.assertEqual(self.host.listening, set())
        self.register(self.open())
        self.change(Procedure.DOMAIN_SUSPEND)
        self.assertEqual(connection.events, [])

    def test_unread(self) -> None:
        """
        A client that does not read what it is sent is disconnected instead of being sent more;
        the others hear of the change.
        """
        sessions: Sequence[tuple[ISession, FakeConnection]] = [self.connect(), self.connect()]
        for session, _connection in sessions:
            self.register(session)
        stuck, reading = (connection for _session, connection in sessions)
        stuck.congested = True
        self.change(Procedure.DOMAIN_SUSPEND)
        self.assertIsInstance(stuck.reason, PeerFlooded)
        self.assertEqual(stuck.events, [])
        self.assertEqual(reading.events, [(0, 3)])
        self.assertIsNone(reading.reason)
