"""
Negotiated keepalive for Twisted, wire-compatible with libvirt's RPC.

The names that most programs need can be imported from here.  Each is loaded when it is first used,
so C{import kaproto} is fast and installs no reactor.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as in typing, whose import would be slow
if TYPE_CHECKING:
    from kaproto.client import KeepAliveClientFactory, KeepAliveClientProtocol, connect
    from kaproto.keepalive.liveness import KeepAlive
    from kaproto.policies import Disable, Mandatory, Optional
    from kaproto.server import KeepAliveServerFactory, KeepAliveServerProtocol

__all__ = [
    "Disable",
    "KeepAlive",
    "KeepAliveClientFactory",
    "KeepAliveClientProtocol",
    "KeepAliveServerFactory",
    "KeepAliveServerProtocol",
    "Mandatory",
    "Optional",
    "__version__",
    "connect",
]

__version__ = "0.1.0"

_MODULES = {
    "Disable": "kaproto.policies",
    "KeepAlive": "kaproto.keepalive.liveness",
    "KeepAliveClientFactory": "kaproto.client",
    "KeepAliveClientProtocol": "kaproto.client",
    "KeepAliveServerFactory": "kaproto.server",
    "KeepAliveServerProtocol": "kaproto.server",
    "Mandatory": "kaproto.policies",
    "Optional": "kaproto.policies",
    "connect": "kaproto.client",
}


def __getattr__(name: str) -> object:
    """
    Load a public name when it is first used (PEP 562).
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
