"""
The scene of a gateway in front of a real libvirtd.
"""

from __future__ import annotations

import os
import ssl
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.harness.attacks.rawsocket import RawPeer
from tests.harness.attacks.targets import LibvirtTarget
from tests.harness.soak.client import Client
from tests.harness.soak.clients import Chatty, Dying
from tests.harness.soak.live import GET_XML, Bulk, Busy, Many, Slow
from tests.harness.soak.lost import Stuck, Unreachable
from tests.harness.soak.scene import Scene
from tests.interop import wire
from tests.pki import Authority, distinguished

__all__ = ["KINDS", "gateway"]

KINDS: Final[dict[type[Client], float]] = {
    Busy: 0.15,
    Slow: 0.15,
    Bulk: 0.1,
    Many: 0.15,
    Chatty: 0.1,
    Dying: 0.15,
    Unreachable: 0.1,
    Stuck: 0.1,
}
"""
The kinds of clients, each with its fraction of the crowd.
"""

_DEFINE_XML: Final = 11
_LONG: Final = 1 << 20
_DOMAIN: Final = """
<domain type="test"><name>long</name><description>{}</description><memory>1024</memory>
<os><type>hvm</type></os></domain>
"""
# libvirtd starts more workers too slowly for the calls that block, and then answers no others.
_SETTINGS: Final = """
max_clients = 10000
max_anonymous_clients = 0
min_workers = 200
max_workers = 200
keepalive_interval = 1
keepalive_count = 2
"""


@contextmanager
def gateway(interval: float, count: int) -> Iterator[Scene]:
    """
    Run a libvirtd during the C{with} block.  It is pinged at the clients' interval and count, and
    itself drops clients after three seconds.
    """
    with (
        LibvirtTarget(_SETTINGS, auth="none") as libvirtd,
        tempfile.TemporaryDirectory(prefix="kaproto-") as folder,
    ):
        peer = RawPeer(libvirtd.address)
        authority = Authority()
        server = authority.issue(distinguished("server"), hosts=["127.0.0.1"])
        pki = authority.write(folder, server, authority.issue(distinguished("client")))
        domain, document = _define(peer)
        yield Scene(
            kinds=KINDS,
            arguments=(
                f"--listen=libvirttls:0:interface=127.0.0.1:pki={pki}",
                f"--upstream=unix:{libvirtd.socketPath}",
                "--insecure",
                f"--upstream-interval={interval:g}",
                f"--upstream-count={count}",
            ),
            folder=libvirtd.directory,
            context=_context(pki),
            domain=domain,
            document=document,
        )


def _context(pki: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=os.path.join(pki, "CA/cacert.pem"))
    context.load_cert_chain(
        os.path.join(pki, "libvirt/clientcert.pem"),
        os.path.join(pki, "libvirt/private/clientkey.pem"),
    )
    return context


def _define(peer: RawPeer) -> tuple[bytes, bytes]:
    """
    Define a domain with a long description.  It exists as long as a client is connected.

    @return: the domain, and the answer to a call for its description.
    """
    peer.open(ask=False)
    domain = peer.call(_DEFINE_XML, wire.string(_DOMAIN.format("." * _LONG)))
    return domain, peer.call(GET_XML, domain + struct.pack(">I", 0))
