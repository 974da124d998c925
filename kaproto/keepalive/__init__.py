"""
Keepalive: decides when to ping a peer, and when it is dead.

L{Heartbeat} is for the protocols of any application.  The protocol tells it how to send a ping, and
when bytes have arrived::

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
