"""
The environment of a soak: the server's arguments, and what its clients need.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from tests.harness.soak.client import Client

__all__ = ["Scene"]


@attrs.frozen
class Scene:
    """
    @ivar kinds: the kinds of clients, each with its fraction of the crowd.
    @ivar arguments: kaserver's arguments, besides its keepalive and its first listener.
    @ivar ports: the ports of kaserver's listeners, once it listens.
    @ivar folder: a folder in which the libvirtd behind kaserver finds files of clients.
    @ivar context: the clients' TLS context.
    @ivar domain: a domain of that libvirtd, encoded as in calls.
    @ivar document: the reply to a call for its description, which is long.
    """

    kinds: Mapping[type[Client], float]
    arguments: tuple[str, ...] = ()
    ports: Sequence[int] = ()
    folder: str = ""
    context: ssl.SSLContext | None = None
    domain: bytes = b""
    document: bytes = b""
