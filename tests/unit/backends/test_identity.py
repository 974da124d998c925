"""
Tests for L{kaproto.backends.identity}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.backends.identity import packIdentity
from kaproto.peer import Peer, UnixCredentials
from kaproto.wire.xdr import Unpacker


def unpackIdentity(payload: bytes) -> dict[str, tuple[int, int | str]]:
    """
    @return: the type and value of each parameter, by name.
    """
    unpacker = Unpacker(payload)
    parameters: dict[str, tuple[int, int | str]] = {}
    for _ in range(unpacker.uint32()):
        name, kind = unpacker.string(), unpacker.int32()
        parameters[name] = (kind, unpacker.string() if kind == 7 else unpacker.uint64())
    assert unpacker.uint32() == 0
    return parameters


class PackIdentityTests(SynchronousTestCase):
    """
    Tests for the identity that a gateway forwards to libvirtd.
    """

    def test_nothingKnown(self) -> None:
        """
        A client that has not authenticated has no identity.
        """
        self.assertIsNone(packIdentity(Peer()))

    def test_names(self) -> None:
        """
        A SASL user and a TLS name are strings.
        """
        payload = packIdentity(Peer(user="fred", tlsDN="C=GB,CN=fred"))
        assert payload is not None
        self.assertEqual(
            unpackIdentity(payload),
            {"sasl-user-name": (7, "fred"), "x509-distinguished-name": (7, "C=GB,CN=fred")},
        )

    def test_unix(self) -> None:
        """
        The credentials of a UNIX socket's peer are numbers of libvirt's types.
        """
        payload = packIdentity(Peer(unixCredentials=UnixCredentials(pid=17, uid=1000, gid=100)))
        assert payload is not None
        self.assertEqual(
            unpackIdentity(payload),
            {"unix-user-id": (4, 1000), "unix-group-id": (4, 100), "process-id": (3, 17)},
        )
