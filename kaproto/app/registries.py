"""
The registry that C{--registry} names, and this kaserver's name in it.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.interfaces import IStreamClientEndpoint

from kaproto.registry.link import MissingExtra, requireExtra
from kaproto.registry.location import BadLocation, Location, Password
from kaproto.registry.schema import NODE_NAME

__all__ = ["checkNode", "redisAt"]


def redisAt(
    reactor: object, url: str | None, passwordFile: str | None
) -> tuple[Location, Password, IStreamClientEndpoint] | None:
    """
    @param url: the value of C{--registry}.
    @param passwordFile: the value of C{--registry-password-file}.
    @return: the location of Redis, its password, and its endpoint; C{None} without a registry.
    @raise ValueError: naming the flag, when one of the values is invalid.
    """
    if url is None:
        if passwordFile is not None:
            raise ValueError("--registry-password-file without --registry=URL")
        return None
    try:
        requireExtra()
        location = Location.parse(url)
        password = location.password(None if passwordFile is None else Path(passwordFile))
        return location, password, location.endpoint(reactor)
    except (BadLocation, MissingExtra) as error:
        raise ValueError(f"--registry: {error}") from error


def checkNode(node: str | None) -> None:
    """
    @param node: the value of C{--node}, if it is set.
    @raise ValueError: naming the flag, when it is not a valid name of a node.
    """
    if node is not None and not NODE_NAME.fullmatch(node):
        raise ValueError(
            f"--node={node}: a node's name has letters, digits, dots, dashes and underscores, 64 "
            "at most"
        )
