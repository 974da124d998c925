"""
The client: L{connect}, and a Protocol and a Factory to subclass.
"""

from kaproto.client.connecting import connect, endpointFor
from kaproto.client.protocol import KeepAliveClientFactory, KeepAliveClientProtocol
from kaproto.security.saslclient import Login

__all__ = [
    "KeepAliveClientFactory",
    "KeepAliveClientProtocol",
    "Login",
    "connect",
    "endpointFor",
]
