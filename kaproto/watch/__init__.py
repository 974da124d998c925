"""
Keepalive for existing protocols.

L{watched} wraps a server's factory, L{watchedClient} and L{watchedEndpoint} wrap a client's.  A
codec defines the keepalive messages of a protocol.
"""

from kaproto.watch.ampcodec import AMPCodec
from kaproto.watch.interfaces import Control, IControlMessages, IHeartbeatCodec, Kind
from kaproto.watch.stringcodecs import IntNCodec, LineCodec, NetstringCodec, Words
from kaproto.watch.wrapper import BEARS, WAIT, watched, watchedClient, watchedEndpoint

__all__ = [
    "BEARS",
    "WAIT",
    "AMPCodec",
    "Control",
    "IControlMessages",
    "IHeartbeatCodec",
    "IntNCodec",
    "Kind",
    "LineCodec",
    "NetstringCodec",
    "Words",
    "watched",
    "watchedClient",
    "watchedEndpoint",
]
