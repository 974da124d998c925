"""
Applications without keepalive of their own: lines inside kaproto's wrapper, or bytes in its tunnel.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.basic import LineReceiver

from kaproto import KeepAlive, Mandatory
from kaproto.watch import LineCodec, watched
from kaproto.watch.tunnelserver import tunnelServer

if __name__ == "__main__":
    port, interval, count, kind = sys.argv[1:]
    policy = Mandatory(KeepAlive(float(interval), int(count)))
    if kind == "lines":
        factory = watched(Factory.forProtocol(LineReceiver), policy, LineCodec())
    else:
        factory = tunnelServer(Factory.forProtocol(Protocol), policy)
    reactor.listenTCP(int(port), factory, backlog=4096, interface="127.0.0.1")
    reactor.run()
