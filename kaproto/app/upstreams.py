"""
From what C{--upstream} says to an endpoint, and to how the gateway logs in there.
"""

from __future__ import annotations

import re
import shlex

from twisted.internet.interfaces import IStreamClientEndpoint

from kaproto.app.suggestions import suggestUpstream
from kaproto.client import endpointFor
from kaproto.security.authfile import authenticationFor
from kaproto.security.certificates import PKIError
from kaproto.security.clientauth import Authentication

__all__ = ["upstreamAuthentication", "upstreamEndpoint"]


def upstreamEndpoint(reactor: object, description: str) -> IStreamClientEndpoint:
    """
    @param description: a client endpoint string or a libvirt URI.
    @raise ValueError: when it is neither; the message says what was meant, if that can be guessed.
    """
    if re.match("(tcp|unix|https?)://", description):
        # To libvirt's clients these are drivers, at a server that they would reach by TLS.
        wanted = suggestUpstream(description) or "qemu+tls://HOST/system"
        raise ValueError(f"is {shlex.quote(f'--upstream={wanted}')} meant?")
    try:
        return endpointFor(reactor, description)[0]
    except PKIError:
        raise
    except Exception as error:
        meant = suggestUpstream(description)
        if meant is not None:
            raise ValueError(f"is {shlex.quote(f'--upstream={meant}')} meant?") from error
        raise ValueError(
            f"{type(error).__name__}: {error}; it takes a Twisted client endpoint, such as "
            "unix:/run/libvirt/libvirt-sock, or a libvirt URI, such as qemu:///system"
        ) from error


def upstreamAuthentication(description: str) -> Authentication:
    """
    @param description: a client endpoint string, or a libvirt URI, which may name a file with the
        password.
    @raise ValueError: when that file cannot be used, which should be known at the start.
    """
    authentication = authenticationFor(description)
    if callable(authentication.login):
        authentication.login()
    return authentication
