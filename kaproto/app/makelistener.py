"""
From the settings of one place to listen at to the listener, unless it would give strangers more
than they may have.
"""

from __future__ import annotations

from pathlib import Path

from kaproto.app.config import ListenSettings
from kaproto.app.listeners import Listener, serverEndpoint, takeReadOnly
from kaproto.app.logins import Logins
from kaproto.security.admission import AccessControl
from kaproto.security.endpoints import transportOf
from kaproto.security.proxy import ProxyEndpoint

__all__ = ["makeListener"]


def makeListener(
    reactor: object,
    settings: ListenSettings,
    logins: Logins,
    folder: Path | None,
    *,
    isGateway: bool,
    insecure: bool,
) -> Listener:
    """
    @param reactor: where to listen.
    @param settings: what is set for this place.
    @param logins: makes the portals.
    @param folder: the socket's, if it is to be made.
    @param isGateway: whether clients have this process's rights at libvirtd.
    @param insecure: whether that may be.
    @raise ValueError: naming the flag, and what to do.
    """
    flag = f"--listen={settings.endpoint}"
    try:
        description, readOnly = takeReadOnly(settings.endpoint)
        endpoint = serverEndpoint(reactor, description)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from error
    transport = transportOf(settings.endpoint)
    if isinstance(endpoint, ProxyEndpoint) and endpoint.terminated is not None:
        transport = "tls"
    if settings.auth and transport == "tcp":
        raise ValueError(
            f"--auth with {flag}: libvirt's clients give no password over plain TCP; listen with "
            "TLS, --listen=libvirttls:16514, or on a UNIX socket"
        )
    portal = logins.portal(settings.auth) if settings.auth else None
    accessControl = AccessControl(portal, settings.tlsAllowedDNs or None, readOnly)
    listener = Listener(settings.endpoint, endpoint, accessControl, folder)
    if listener.believesEverybodyHere and not insecure:
        raise ValueError(
            f"{flag}: from= includes this machine, and any of its programs could write a PROXY "
            "header and be whom it likes. Have a balancer on this machine connect to a UNIX "
            "socket, --listen=proxy:unix:PATH, whose mode says who may, or pass --insecure"
        )
    known = listener.authenticates or transport == "unix"
    if isGateway and not known and not insecure:
        raise ValueError(
            f"{flag}: everybody who can connect there, every user of this machine included, would "
            "have this gateway's rights at libvirtd. Listen on a UNIX socket instead, whose mode "
            "says who may connect (leave --listen out, or "
            "--listen=unix:/run/kaserver/libvirt-sock:group=libvirt), or pass --insecure"
        )
    return listener
