"""
Keepalive: who is alive, and when to ask.

L{Heartbeat} is for the protocols of any application.  It is told how to send a ping and that
something was heard::

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
