"""
Twisted's own port forwarder, which copies bytes and looks at none.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.protocols.portforward import ProxyFactory

if __name__ == "__main__":
    port, upstream = sys.argv[1:]
    factory = ProxyFactory("127.0.0.1", int(upstream))
    reactor.listenTCP(
        int(port),
        factory,  # type: ignore[arg-type]
        backlog=4096,
        interface="127.0.0.1",
    )
    reactor.run()
