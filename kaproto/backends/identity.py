"""
A client's identity as libvirtd is told of it: the arguments of C{CONNECT_SET_IDENTITY}.
"""

from __future__ import annotations

from enum import IntEnum

from kaproto.peer import Peer
from kaproto.wire.xdr import Packer

__all__ = ["packIdentity"]


class _Type(IntEnum):
    """
    Types of a typed parameter (C{virTypedParameterType}).
    """

    LLONG = 3
    ULLONG = 4
    STRING = 7


def packIdentity(peer: Peer) -> bytes | None:
    """
    Only what authentication has established is told: the names of libvirt's C{virIdentity} are
    C{sasl-user-name}, C{x509-distinguished-name}, C{unix-user-id}, C{unix-group-id} and
    C{process-id}.

    @return: the payload, or C{None} for a peer of which nothing is known.
    """
    parameters: list[tuple[str, _Type, int | str]] = []
    if peer.user is not None:
        parameters.append(("sasl-user-name", _Type.STRING, peer.user))
    if peer.tlsDN is not None:
        parameters.append(("x509-distinguished-name", _Type.STRING, peer.tlsDN))
    credentials = peer.unixCredentials
    if credentials is not None:
        parameters.append(("unix-user-id", _Type.ULLONG, credentials.uid))
        parameters.append(("unix-group-id", _Type.ULLONG, credentials.gid))
        parameters.append(("process-id", _Type.LLONG, credentials.pid))
    if not parameters:
        return None
    packer = Packer().uint32(len(parameters))
    for name, kind, value in parameters:
        packer.string(name).int32(kind)
        if isinstance(value, str):
            packer.string(value)
        else:
            packer.uint64(value)
    return packer.uint32(0).packed()
