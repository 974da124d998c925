"""
The listeners for administration and monitoring.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.interfaces import IStreamServerEndpoint

from kaproto.app.listeners import serverEndpoint
from kaproto.app.ports import Place
from kaproto.endpointstring import quoted
from kaproto.security.endpoints import transportOf
from kaproto.server import KeepAliveServerFactory
from kaproto.status.agent import AgentFactory
from kaproto.status.site import StatusFactory

__all__ = ["adminEndpoint", "adminPlace", "agentPlace", "statusPlace"]


def adminEndpoint(reactor: object, description: str) -> IStreamServerEndpoint:
    """
    @param description: a UNIX socket's path or endpoint string.  Only the socket's owner and root
        can connect.  A relative path is resolved against the folder in which kaserver is started.
    @return: the endpoint.
    @raise ValueError: when the description is neither; the message says what is valid.
    """
    named = ":" not in description and description and not description.isdecimal()
    if named or description.startswith(("/", "./", "../")):
        # twistd may change its working directory before it listens.
        description = f"unix:{quoted(str(Path(description).absolute()))}"
    if transportOf(description) != "unix":
        raise ValueError(
            "administration is over a UNIX socket only: it takes a path such as "
            "/run/kaserver/admin-sock, or systemd:domain=UNIX:name=admin"
        )
    if description.startswith("unix:") and ":mode=" not in description:
        description += ":mode=600"
    return serverEndpoint(reactor, description)


def statusPlace(
    description: str, endpoint: IStreamServerEndpoint, factory: StatusFactory, *, insecure: bool
) -> Place:
    """
    @param description: the setting's value.
    @param factory: serves the status page.
    @param insecure: whether other machines may connect.
    """
    return Place(
        f"--status={description}",
        endpoint,
        factory,
        "status page",
        exposable=insecure,
        remedy="use a UNIX socket",
    )


def agentPlace(description: str, endpoint: IStreamServerEndpoint, factory: AgentFactory) -> Place:
    """
    @param description: the setting's value.
    @param factory: answers haproxy, which may be on another machine: the answer is not secret.
    """
    flag = f"--agent={description}"
    return Place(flag, endpoint, factory, "haproxy's agent-check", exposable=True)


def adminPlace(
    description: str, endpoint: IStreamServerEndpoint, factory: KeepAliveServerFactory
) -> Place:
    """
    @param description: the setting's value.
    @param factory: serves administrators.
    """
    return Place(f"--admin={description}", endpoint, factory, "administration")
