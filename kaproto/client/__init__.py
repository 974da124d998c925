"""
The client: L{connect}, and a Protocol and a Factory to subclass.
"""

from kaproto.client.connecting import connect, endpointFor
from kaproto.client.protocol import KeepAliveClientFactory, KeepAliveClientProtocol

__all__ = ["KeepAliveClientFactory", "KeepAliveClientProtocol", "connect", "endpointFor"]
