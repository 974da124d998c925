"""
Keepalive: decides when to ping a peer, and when it is dead.

L{Heartbeat} works with any protocol.  The protocol passes it a function that sends a ping, and
reports received bytes::

    class Chat(LineReceiver):
        def connectionMade(self):
            self.heartbeat = Heartbeat(self.transport, ping=lambda: self.sendLine(b"PING"))
            self.heartbeat.start(KeepAlive(5, 5))

        def dataReceived(self, data):
            self.heartbeat.heard()
            super().dataReceived(data)
"""

from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.liveness import KeepAlive

__all__ = ["Heartbeat", "KeepAlive"]
