"""
Tests for L{kaproto.backends.host}.
"""

from __future__ import annotations

import contextlib
import socket
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto import __version__
from kaproto.backends.domain import DOMAIN
from kaproto.backends.host import HOST_NAME, EmbeddedHost
from kaproto.backends.machine import capabilities, nodeInfo, versionNumber
from kaproto.errors import ConnectionClosed, RemoteError
from kaproto.interfaces import IBackend, ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.wire.programs import Feature, Procedure
from kaproto.wire.xdr import Packer, Unpacker, XDRError
from tests.unit.backends.test_domain import FakeConnection

TEST = Packer().string("test").fixed(DOMAIN.uuid.bytes).int32(1).packed()
STRANGER = Packer().string("test").fixed(bytes(16)).int32(1).packed()
FLAGS = b"\0\0\0\0"


class HostTestCase(SynchronousTestCase):
    """
    Base class for tests of an embedded host.
    """

    def setUp(self) -> None:
        """
        Create a host.
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
        @return: the reply to a call.
        """
        self.assertTrue(self.host.knows(procedure))
        answer = (self.open() if session is None else session).callReceived(procedure, payload)
        assert isinstance(answer, bytes)
        return Unpacker(answer)

    def errorOf(
        self, procedure: int, payload: bytes, session: ISession | None = None
    ) -> tuple[int, int, str]:
        """
        @return: code, domain and message of the error that a call raises.
        """
        error = self.assertRaises(RemoteError, self.ask, procedure, payload, session)
        return error.code, error.domain, error.message


class OpenTests(HostTestCase):
    """
    Tests for opening the host.
    """

    def test_interfaces(self) -> None:
        """
        The host is a backend with domain events, and its sessions are never busy.
        """
        verifyObject(IBackend, self.host)
        self.assertEqual(self.host.features, {Feature.REMOTE_EVENT_CALLBACK})
        self.assertEqual(str(self.host), "embedded host")
        session = self.open()
        verifyObject(ISession, session)
        self.assertTrue(session.idle)

    def test_names(self) -> None:
        """
        A client may open an empty name, or the test driver's with any parameters.
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
        Any other name is refused; the error says which name to open.
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
        The host does not know procedures that it cannot answer.
        """
        for procedure in (1, 2, 5, 60, 66, 318, 360, 362, 0, -1, 9999):
            self.assertFalse(self.host.knows(procedure), procedure)


class MachineTests(HostTestCase):
    """
    Tests for the host's description of the machine.
    """

    def test_strings(self) -> None:
        """
        The type is C{kaproto}, and the host name is the machine's.
        """
        self.assertEqual(self.ask(Procedure.CONNECT_GET_TYPE).string(), "kaproto")
        self.assertEqual(self.ask(Procedure.CONNECT_GET_HOSTNAME).string(), socket.gethostname())

    def test_versions(self) -> None:
        """
        The versions of the hypervisor and of the library are this package's.
        """
        for procedure in (Procedure.CONNECT_GET_VERSION, Procedure.CONNECT_GET_LIB_VERSION):
            self.assertEqual(self.ask(procedure).uint64(), versionNumber(__version__))

    def test_machine(self) -> None:
        """
        The machine's description comes from L{kaproto.backends.machine}.
        """
        answer = self.ask(Procedure.NODE_GET_INFO)
        self.assertEqual(answer.fixed(len(nodeInfo())), nodeInfo())
        text = self.ask(Procedure.CONNECT_GET_CAPABILITIES).string()
        self.assertEqual(text, capabilities())

    def test_secure(self) -> None:
        """
        Connections over TLS and UNIX sockets are secure, those over TCP are not.
        """
        for transport, secure in (("tcp", 0), ("tls", 1), ("unix", 1)):
            session = self.open(peer=Peer(transport=transport))
            answer = self.ask(Procedure.CONNECT_IS_SECURE, session=session)
            self.assertEqual(answer.int32(), secure)


class DomainTests(HostTestCase):
    """
    Tests for the domain C{test}.
    """

    def state(self, session: ISession | None = None) -> tuple[int, int]:
        """
        @return: the domain's state and the reason.
        """
        answer = self.ask(Procedure.DOMAIN_GET_STATE, TEST + FLAGS, session)
        return answer.int32(), answer.int32()

    def test_lookup(self) -> None:
        """
        The domain is found by ID, by name and by UUID.
        """
        for procedure, payload in (
            (Procedure.DOMAIN_LOOKUP_BY_ID, Packer().int32(1).packed()),
            (Procedure.DOMAIN_LOOKUP_BY_NAME, Packer().string("test").packed()),
            (Procedure.DOMAIN_LOOKUP_BY_UUID, DOMAIN.uuid.bytes),
        ):
            self.assertEqual(self.ask(procedure, payload).fixed(len(TEST)), TEST)

    def test_notFound(self) -> None:
        """
        Any other domain is unknown, whatever key is used; the error says which domain exists.
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
            code, domain, message = self.errorOf(procedure, payload)
            self.assertEqual((code, domain), (42, 12))
            self.assertIn(f"no domain with the {named}", message)
            self.assertTrue(message.endswith("this server has test"))
            self.assertLess(len(message), 200)

    def test_listed(self) -> None:
        """
        The domain is listed if it matches the flags.  A client may also ask for the number of
        domains alone.
        """
        for wanted, flags, expected in (
            (1, 1, b"\0\0\0\1" + TEST + b"\0\0\0\1"),
            (1, 2, bytes(8)),
            (0, 1, b"\0\0\0\0\0\0\0\1"),
        ):
            payload = Packer().int32(wanted).uint32(flags).packed()
            answer = self.ask(Procedure.CONNECT_LIST_ALL_DOMAINS, payload)
            self.assertEqual(answer.fixed(len(expected)), expected)
        self.assertRaises(XDRError, self.ask, Procedure.CONNECT_LIST_ALL_DOMAINS, FLAGS)

    def test_facts(self) -> None:
        """
        The domain is running, active and persistent, has 1 GiB and one CPU, and does not start
        automatically.
        """
        info = self.ask(Procedure.DOMAIN_GET_INFO, TEST)
        self.assertEqual(
            (info.int32(), info.uint64(), info.uint64(), info.int32(), info.uint64()),
            (1, 1048576, 1048576, 1, 0),
        )
        self.assertEqual(self.ask(Procedure.DOMAIN_GET_OS_TYPE, TEST).string(), "hvm")
        for procedure, answer in (
            (Procedure.DOMAIN_IS_ACTIVE, 1),
            (Procedure.DOMAIN_IS_PERSISTENT, 1),
            (Procedure.DOMAIN_GET_AUTOSTART, 0),
            (Procedure.DOMAIN_HAS_MANAGED_SAVE_IMAGE, 0),
        ):
            self.assertEqual(self.ask(procedure, TEST + FLAGS).int32(), answer)

    def test_description(self) -> None:
        """
        The domain's XML has the same name, UUID, ID and memory.
        """
        text = self.ask(Procedure.DOMAIN_GET_XML_DESC, TEST + FLAGS).string()
        document = ET.fromstring(text)
        self.assertEqual(document.get("id"), "1")
        self.assertEqual(document.findtext("name"), "test")
        self.assertEqual(document.findtext("uuid"), str(DOMAIN.uuid))
        self.assertEqual(document.findtext("memory"), "1048576")

    @given(st.sampled_from(list(Procedure)), st.binary(max_size=60))
    def test_garbage(self, procedure: int, payload: bytes) -> None:
        """
        Every procedure returns for every payload, or raises one of the two errors that are sent to
        the client.
        """
        if not self.host.knows(procedure):
            return
        session = self.open()
        session.opened(FakeConnection())
        with contextlib.suppress(RemoteError, XDRError):
            self.assertIsInstance(session.callReceived(procedure, payload), bytes)

    def test_suspendAndResume(self) -> None:
        """
        A domain that one connection suspends is paused for all, until any of them resumes it.
        """
        one, other = self.open(), self.open()
        self.assertEqual(self.state(other), (1, 1))
        self.ask(Procedure.DOMAIN_SUSPEND, TEST, one)
        self.assertEqual(self.state(other), (3, 1))
        self.assertEqual(self.ask(Procedure.DOMAIN_GET_INFO, TEST, other).int32(), 3)
        self.ask(Procedure.DOMAIN_RESUME, TEST, other)
        self.assertEqual(self.state(one), (1, 5))

    def test_readOnly(self) -> None:
        """
        A read-only connection cannot change the domain.
        """
        session = self.open(flags=1)
        for procedure, function in (
            (Procedure.DOMAIN_SUSPEND, "virDomainSuspend"),
            (Procedure.DOMAIN_RESUME, "virDomainResume"),
        ):
            code, _domain, message = self.errorOf(procedure, TEST, session)
            self.assertEqual(code, 29)
            self.assertEqual(message, f"operation forbidden: read only access prevents {function}")
        self.assertEqual(self.state(session), (1, 1))


class EventTests(HostTestCase):
    """
    Tests for domain events.
    """

    def connect(self) -> tuple[ISession, FakeConnection]:
        """
        @return: an open session, and the connection that its events are sent to.
        """
        session, connection = self.open(), FakeConnection()
        session.opened(connection)
        return session, connection

    def register(self, session: ISession, filtered: bytes | None = None) -> int:
        """
        Register a callback for lifecycle events.

        @return: the callback's ID.
        """
        packer = Packer().int32(0).uint32(filtered is not None).fixed(filtered or b"")
        return self.ask(
            Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, packer.packed(), session
        ).int32()

    def deregister(self, session: ISession, callback: int) -> None:
        """
        Deregister a callback.
        """
        payload = Packer().int32(callback).packed()
        self.ask(Procedure.CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, payload, session)

    def test_events(self) -> None:
        """
        Callbacks for all domains and for this one get the events that other connections cause,
        until they are deregistered.
        """
        session, connection = self.connect()
        self.assertEqual([self.register(session), self.register(session, TEST)], [0, 1])
        other = self.open()
        self.ask(Procedure.DOMAIN_SUSPEND, TEST, other)
        self.deregister(session, 0)
        self.ask(Procedure.DOMAIN_RESUME, TEST, other)
        self.assertEqual(connection.events, [(0, 3), (1, 3), (1, 4)])

    def test_stranger(self) -> None:
        """
        A callback for an unknown domain is refused.
        """
        session, _connection = self.connect()
        error = self.assertRaises(RemoteError, self.register, session, STRANGER)
        self.assertEqual(error.code, 42)

    def test_closed(self) -> None:
        """
        No events are sent to a closed session, and a session that was never opened can be closed.
        """
        session, connection = self.connect()
        self.register(session)
        session.closed(ConnectionClosed("enough"))
        self.open().closed(ConnectionClosed("never opened"))
        self.ask(Procedure.DOMAIN_SUSPEND, TEST)
        self.assertEqual(connection.events, [])
        self.assertEqual(self.host.domain.listeners, set())
