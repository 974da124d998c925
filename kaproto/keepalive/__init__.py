"""
Keepalive: who is alive, and when to ask.

L{Heartbeat} is for the protocols of any application.
"""

from kaproto.keepalive.heartbeat import Heartbeat
from kaproto.keepalive.liveness import KeepAlive

__all__ = ["Heartbeat", "KeepAlive"]
