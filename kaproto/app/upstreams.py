"""
The libvirtd that C{--upstream} names.
"""

from __future__ import annotations

import re
import shlex
from urllib.parse import urlsplit

import attrs
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from kaproto.app.suggestions import suggestUpstream
from kaproto.client import endpointFor
from kaproto.endpointstring import whyNotMade
from kaproto.security.authfile import authenticationFor
from kaproto.security.certificates import PKIError
from kaproto.security.clientauth import Authentication
from kaproto.uri import checkName, isURI

__all__ = ["UpstreamServer", "upstreamServer"]


@attrs.frozen
class UpstreamServer:
    """
    The libvirtd behind a gateway.

    @ivar endpoint: the endpoint that connects to it.
    @ivar authentication: the gateway's own authentication to it.
    @ivar asked: whether the gateway asks it for keepalive.
    """

    endpoint: IStreamClientEndpoint
    authentication: Authentication
    asked: bool


def upstreamServer(reactor: object, description: str, ask: str) -> UpstreamServer:
    """
    @param description: a client endpoint string or a libvirt URI, which may name a file with the
        gateway's password.
    @param ask: the value of C{--upstream-ask}; C{"auto"} does not ask on a UNIX socket.
    @raise ValueError: naming the flag, with a suggested correction if there is one.
    """
    try:
        endpoint = _endpoint(reactor, description)
        authentication = authenticationFor(description)
        if callable(authentication.login):
            # Report an invalid file at the start, not when the first client opens.
            authentication.login()
    except ValueError as error:
        raise ValueError(f"--upstream={description}: {error}") from error
    local = isinstance(endpoint, UNIXClientEndpoint)
    return UpstreamServer(endpoint, authentication, ask == "yes" or (ask == "auto" and not local))


def _endpoint(reactor: object, description: str) -> IStreamClientEndpoint:
    if re.match("(tcp|unix|https?)://", description):
        # libvirt would take these schemes for the names of drivers, on a server reached by TLS.
        wanted = suggestUpstream(description) or "qemu+tls://HOST/system"
        raise ValueError(f"is {shlex.quote(f'--upstream={wanted}')} meant?")
    if re.match("unix:(:|$)", description):
        raise ValueError("it takes a path, such as unix:/run/libvirt/libvirt-sock")
    try:
        endpoint = endpointFor(reactor, description)[0]
    except PKIError:
        raise
    except Exception as error:
        meant = suggestUpstream(description)
        if meant is not None:
            raise ValueError(f"is {shlex.quote(f'--upstream={meant}')} meant?") from error
        # The cause says what is wrong; the error also says what it takes, as the next lines do.
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise ValueError(
            f"{whyNotMade(cause)}; it takes a Twisted client endpoint, such as "
            "unix:/run/libvirt/libvirt-sock, or a libvirt URI, such as qemu:///system"
        ) from error
    if isURI(description):
        parts = urlsplit(description)
        checkName(parts.scheme.partition("+")[0], parts.path)
    return endpoint
