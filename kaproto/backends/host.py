"""
The embedded host: answers for the machine it runs on, so that no libvirtd is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from zope.interface import implementer

from kaproto import __version__
from kaproto.backends import machine
from kaproto.errors import RemoteError
from kaproto.interfaces import IBackend, ISession, OpenRequest
from kaproto.peer import Peer
from kaproto.wire.programs import ErrorCode, ErrorDomain, Procedure
from kaproto.wire.xdr import Packer, Unpacker

__all__ = ["HOST_NAME", "EmbeddedHost", "versionNumber"]

HOST_NAME: Final = "test:///default"
"""
The name that clients open, because every libvirt client knows how to get to the test driver.
"""

_TYPE: Final = "kaproto"
_MODEL_SIZE: Final = 32


def versionNumber(version: str) -> int:
    """
    @param version: such as C{"1.2.3"} or C{"1.2.3rc1"}.
    @return: the number libvirt makes of that: major * 1,000,000 + minor * 1,000 + release.
    """
    major, minor, release = (int(part) for part in re.findall(r"\d+", version)[:3])
    return major * 1_000_000 + minor * 1_000 + release


@implementer(IBackend)
class EmbeddedHost:
    """
    A host without any domains on it.

    What it says of the machine is looked up once, when it is made.
    """

    def __init__(self) -> None:
        self.hostname = machine.hostname()
        self.node = machine.nodeInfo()
        self.capabilities = machine.capabilities(self.node)

    def __str__(self) -> str:
        """
        The backend as log lines name it.
        """
        return "embedded host"

    def knows(self, procedure: int) -> bool:
        """
        See L{IBackend.knows}.
        """
        return procedure in _ANSWERS

    def open(self, peer: Peer, request: OpenRequest) -> ISession:
        """
        See L{IBackend.open}.

        @raise RemoteError: for any name but L{HOST_NAME} and the empty one.
        """
        name = request.name or HOST_NAME
        if name.partition("?")[0] != HOST_NAME:
            raise RemoteError(
                ErrorCode.NO_CONNECT,
                ErrorDomain.NONE,
                f"no connection driver available for {name}; this server has {HOST_NAME}",
            )
        return _HostSession(self, peer, name)


@implementer(ISession)
class _HostSession:
    __slots__ = ("host", "name", "peer")
    idle = True

    def __init__(self, host: EmbeddedHost, peer: Peer, name: str) -> None:
        self.host = host
        self.peer = peer
        self.name = name

    def opened(self, connection: object) -> None:
        """
        Nothing is to be done.
        """

    def callReceived(self, procedure: int, payload: bytes) -> bytes:
        """
        See L{ISession.callReceived}.
        """
        return _ANSWERS[procedure](self, payload)

    def closed(self, reason: Exception) -> None:
        """
        Nothing was held.
        """


def _type(session: _HostSession, payload: bytes) -> bytes:
    return Packer().string(_TYPE).packed()


def _version(session: _HostSession, payload: bytes) -> bytes:
    return Packer().uint64(versionNumber(__version__)).packed()


def _hostname(session: _HostSession, payload: bytes) -> bytes:
    return Packer().string(session.host.hostname).packed()


def _uri(session: _HostSession, payload: bytes) -> bytes:
    return Packer().string(session.name).packed()


def _isSecure(session: _HostSession, payload: bytes) -> bytes:
    return Packer().int32(session.peer.secure).packed()


def _capabilities(session: _HostSession, payload: bytes) -> bytes:
    return Packer().string(session.host.capabilities).packed()


def _nodeInfo(session: _HostSession, payload: bytes) -> bytes:
    node = session.host.node
    model = node.model.encode()[: _MODEL_SIZE - 1].ljust(_MODEL_SIZE, b"\0")
    packer = Packer().chars(model).uint64(node.memory)
    for number in (node.cpus, node.mhz, node.nodes, node.sockets, node.cores, node.threads):
        packer.int32(number)
    return packer.packed()


def _listAllDomains(session: _HostSession, payload: bytes) -> bytes:
    arguments = Unpacker(payload)
    arguments.int32()
    arguments.uint32()
    return Packer().uint32(0).uint32(0).packed()


_ANSWERS: Final[Mapping[int, Callable[[_HostSession, bytes], bytes]]] = {
    Procedure.CONNECT_GET_TYPE: _type,
    Procedure.CONNECT_GET_VERSION: _version,
    Procedure.NODE_GET_INFO: _nodeInfo,
    Procedure.CONNECT_GET_CAPABILITIES: _capabilities,
    Procedure.CONNECT_GET_HOSTNAME: _hostname,
    Procedure.CONNECT_GET_URI: _uri,
    Procedure.CONNECT_IS_SECURE: _isSecure,
    Procedure.CONNECT_GET_LIB_VERSION: _version,
    Procedure.CONNECT_LIST_ALL_DOMAINS: _listAllDomains,
}
