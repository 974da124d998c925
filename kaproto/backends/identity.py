"""
A client's identity for libvirtd: the arguments of C{CONNECT_SET_IDENTITY}.
"""

from __future__ import annotations

from kaproto.peer import Peer
from kaproto.wire.xdr import Packer, ParameterType, TypedParameter

__all__ = ["packIdentity"]


def packIdentity(peer: Peer) -> bytes | None:
    """
    Pack the authenticated attributes of a client, with the names of libvirt's C{virIdentity}:
    C{sasl-user-name}, C{x509-distinguished-name}, C{unix-user-id}, C{unix-group-id} and
    C{process-id}.

    @return: the payload; C{None} if there are none.
    """
    parameters = []
    if peer.user is not None:
        parameters.append(TypedParameter("sasl-user-name", peer.user))
    if peer.tlsDN is not None:
        parameters.append(TypedParameter("x509-distinguished-name", peer.tlsDN))
    credentials = peer.unixCredentials
    if credentials is not None:
        parameters += [
            TypedParameter("unix-user-id", credentials.uid, ParameterType.ULLONG),
            TypedParameter("unix-group-id", credentials.gid, ParameterType.ULLONG),
            TypedParameter("process-id", credentials.pid, ParameterType.LLONG),
        ]
    if not parameters:
        return None
    return Packer().typedParameters(parameters).uint32(0).packed()
