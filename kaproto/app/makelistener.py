"""
Makes listeners from their settings, and refuses settings that would give strangers a gateway's
rights or let them impersonate clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from kaproto.app.config import ListenSettings
from kaproto.app.listeners import (
    DEFAULT_LISTEN,
    Listener,
    defaultSocket,
    serverEndpoint,
    takeReadOnly,
    unixListener,
)
from kaproto.app.logins import Logins
from kaproto.security.admission import AccessControl
from kaproto.security.endpoints import transportOf
from kaproto.security.proxy import ProxyEndpoint

__all__ = ["defaultPlace", "makeListeners"]


def defaultPlace(
    environment: Mapping[str, str], *, root: bool, isGateway: bool
) -> tuple[ListenSettings, Path | None]:
    """
    @param environment: the environment, which names the folder for sockets.
    @param root: whether this process runs as root.
    @return: the default listener, and the folder to create for its socket, if it has one.
    @raise ValueError: when a gateway has no folder for its socket.
    """
    if not isGateway:
        return ListenSettings(DEFAULT_LISTEN), None
    path = defaultSocket(environment, root=root)
    if path is None:
        raise ValueError(
            "--upstream without --listen: there is no folder for the socket, as neither "
            "RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set; name one, such as "
            "--listen=unix:/path/to/libvirt-sock"
        )
    return ListenSettings(unixListener(path)), path.parent


def makeListeners(
    reactor: object,
    places: Sequence[ListenSettings],
    common: ListenSettings,
    logins: Logins,
    *,
    folder: Path | None,
    isGateway: bool,
    insecure: bool,
) -> Sequence[Listener]:
    """
    @param reactor: the reactor that listens.
    @param common: the settings of listeners that do not have their own.
    @param logins: makes the portals.
    @param folder: the folder to create for sockets; C{None} to create none.
    @param isGateway: whether clients get this process's rights at libvirtd.
    @param insecure: whether unauthenticated clients may get them, too.
    @raise ValueError: naming the flag, and a remedy.
    """
    listeners = [
        _listener(reactor, _completed(each, common), logins, folder, isGateway, insecure)
        for each in places
    ]
    if any(each.accessControl.tlsAllowedDNs for each in listeners) and not any(
        each.wantsCertificates for each in listeners
    ):
        raise ValueError(
            "--tls-allowed-dn needs a listener whose clients have certificates: add "
            "--listen=libvirttls:16514"
        )
    return listeners


def _completed(place: ListenSettings, common: ListenSettings) -> ListenSettings:
    if place.auth is None:
        place = attrs.evolve(place, auth=common.auth or ())
    if place.tlsAllowedDNs is None:
        place = attrs.evolve(place, tlsAllowedDNs=common.tlsAllowedDNs)
    return place


def _listener(
    reactor: object,
    settings: ListenSettings,
    logins: Logins,
    folder: Path | None,
    isGateway: bool,
    insecure: bool,
) -> Listener:
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
            f"{flag}: from= includes this machine, so any of its programs could write a PROXY "
            "header and impersonate any client. Let a balancer on this machine connect to a UNIX "
            "socket with a restricted mode (--listen=proxy:unix:PATH), or pass --insecure"
        )
    known = listener.authenticates or transport == "unix"
    if isGateway and not known and not insecure:
        raise ValueError(
            f"{flag}: anyone who can connect there, including every user of this machine, would "
            "have this gateway's rights at libvirtd. Listen on a UNIX socket with a restricted "
            "mode (leave --listen out, or "
            "--listen=unix:/run/kaserver/libvirt-sock:group=libvirt), or pass --insecure"
        )
    return listener
