"""
Where a soak happens: the server's arguments, and what its clients need to know.
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
    @ivar kinds: which part of the crowd is of each kind.
    @ivar arguments: kaserver's, beside its keepalive and its first listener.
    @ivar ports: the ports of kaserver's listeners, once it listens.
    @ivar folder: where the libvirtd behind kaserver finds what clients make for it.
    @ivar context: what clients speak TLS with.
    @ivar domain: a domain of that libvirtd, as it stands in calls.
    @ivar document: the answer to a call for its description, which is long.
    """

    kinds: Mapping[type[Client], float]
    arguments: tuple[str, ...] = ()
    ports: Sequence[int] = ()
    folder: str = ""
    context: ssl.SSLContext | None = None
    domain: bytes = b""
    document: bytes = b""
