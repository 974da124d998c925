"""
Tests for L{kaproto.backends.host}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto import __version__
from kaproto.backends import machine
from kaproto.backends.host import HOST_NAME, EmbeddedHost, versionNumber
from kaproto.errors import ConnectionClosed, RemoteError
from kaproto.interfaces import IBackend, ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.wire.programs import Procedure
from kaproto.wire.xdr import Unpacker, XDRError


class VersionTests(SynchronousTestCase):
    """
    Versions as libvirt counts them.
    """

    def test_number(self) -> None:
        """
        A version is one number: a million for each major, a thousand for each minor version.
        """
        self.assertEqual(versionNumber("1.2.3"), 1002003)
        self.assertEqual(versionNumber("0.1.0"), 1000)
        self.assertEqual(versionNumber("12.34.56.dev7"), 12034056)
        self.assertEqual(versionNumber("1.2.3rc1"), 1002003)

    def test_ours(self) -> None:
        """
        The version of this package has a number.
        """
        self.assertGreater(versionNumber(__version__), 0)


class EmbeddedHostTests(SynchronousTestCase):
    """
    A host that answers for the machine the test runs on.
    """

    def setUp(self) -> None:
        """
        Look the machine up.
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

    def test_interfaces(self) -> None:
        """
        It is a backend and opens sessions, which are never busy.
        """
        verifyObject(IBackend, self.host)
        session = self.open()
        verifyObject(ISession, session)
        self.assertTrue(session.idle)

    def test_name(self) -> None:
        """
        Log lines call it the embedded host.
        """
        self.assertEqual(str(self.host), "embedded host")

    def test_names(self) -> None:
        """
        The test driver's name can be opened, with parameters for others, and so can no name.
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

    def test_type(self) -> None:
        """
        The hypervisor is none of libvirt's.
        """
        self.assertEqual(self.ask(Procedure.CONNECT_GET_TYPE).string(), "kaproto")

    def test_versions(self) -> None:
        """
        The versions of the hypervisor and of the library are this package's.
        """
        for procedure in (Procedure.CONNECT_GET_VERSION, Procedure.CONNECT_GET_LIB_VERSION):
            self.assertEqual(self.ask(procedure).uint64(), versionNumber(__version__))

    def test_hostname(self) -> None:
        """
        The host's name is the machine's.
        """
        self.assertEqual(self.ask(Procedure.CONNECT_GET_HOSTNAME).string(), machine.hostname())

    def test_secure(self) -> None:
        """
        A connection is secure if nobody in between can read it.
        """
        for transport, secure in (("tcp", 0), ("tls", 1), ("unix", 1)):
            session = self.open(peer=Peer(transport=transport))
            answer = self.ask(Procedure.CONNECT_IS_SECURE, session=session)
            self.assertEqual(answer.int32(), secure)

    def test_capabilities(self) -> None:
        """
        The capabilities are the machine's.
        """
        self.assertEqual(
            self.ask(Procedure.CONNECT_GET_CAPABILITIES).string(),
            machine.capabilities(machine.nodeInfo()),
        )

    def test_nodeInfo(self) -> None:
        """
        The machine in numbers is 160 bytes, and as the machine is.
        """
        node = machine.nodeInfo()
        answer = self.ask(Procedure.NODE_GET_INFO)
        self.assertEqual(answer.chars(32).rstrip(b"\0").decode(), node.model)
        self.assertEqual(answer.uint64(), node.memory)
        self.assertEqual(
            [answer.int32() for _number in range(6)],
            # The frequency may have changed since.
            [node.cpus, self.host.node.mhz, node.nodes, node.sockets, node.cores, node.threads],
        )
        self.assertRaises(XDRError, answer.int32)

    def test_longModel(self) -> None:
        """
        A model that is longer than its field is cut, and still ends with a zero.
        """
        host = EmbeddedHost.__new__(EmbeddedHost)
        host.node = machine.NodeInfo("m" * 40, 1, 1, 1, 1, 1, 1, 1)
        session = host.open(Peer(), OpenRequest("", 0))
        model = self.ask(Procedure.NODE_GET_INFO, session=session).chars(32)
        self.assertEqual(model, b"m" * 31 + b"\0")

    def test_noDomains(self) -> None:
        """
        There are no domains to list; whoever asks must say how.
        """
        answer = self.ask(Procedure.CONNECT_LIST_ALL_DOMAINS, b"\0\0\0\1\0\0\0\3")
        self.assertEqual((answer.uint32(), answer.uint32()), (0, 0))
        self.assertRaises(XDRError, self.ask, Procedure.CONNECT_LIST_ALL_DOMAINS, b"\0\0\0\1")

    def test_knows(self) -> None:
        """
        It knows what it can answer and nothing else.
        """
        for procedure in (1, 2, 5, 60, 66, 360, 362, 0, -1, 9999):
            self.assertFalse(self.host.knows(procedure), procedure)

    def test_lifecycle(self) -> None:
        """
        A session holds nothing, so that it does not care when it is opened or closed.
        """
        session = self.open()
        session.opened(object())
        session.closed(ConnectionClosed("enough"))
        self.assertEqual(self.ask(Procedure.CONNECT_GET_TYPE, session=session).string(), "kaproto")
