"""
Finds codecs and policies by name, and the plugins that add codecs.

Codecs are plugins: kaproto has C{lines}, C{netstrings}, C{int8}, C{int16}, C{int32} and C{amp}, and
any package can add its own.  For example C{twisted/plugins/acme_codecs.py}::

    from acme.keepalive import FrameCodec

    frames = FrameCodec()
"""

from __future__ import annotations

from typing import Final

from twisted.plugin import getPlugins

from kaproto.interfaces import IKeepAlivePolicy
from kaproto.policies.modes import MODES, Policy
from kaproto.watch.ampcodec import AMPCodec
from kaproto.watch.interfaces import IHeartbeatCodec
from kaproto.watch.stringcodecs import IntNCodec, LineCodec, NetstringCodec

__all__ = ["CODECS", "codecFor", "installedCodecs", "policyFor"]

CODECS: Final[tuple[IHeartbeatCodec, ...]] = (
    LineCodec(),
    NetstringCodec(),
    IntNCodec(structFormat="!B"),
    IntNCodec(structFormat="!H"),
    IntNCodec(structFormat="!I"),
    AMPCodec(),
)
"""
kaproto's own codecs.
"""


def installedCodecs() -> dict[str, IHeartbeatCodec]:
    """
    @return: kaproto's own codecs and those of installed plugins, by name.  A plugin cannot replace
        one of kaproto's own.
    """
    codecs = {codec.name: codec for codec in CODECS}
    for codec in getPlugins(IHeartbeatCodec):
        codecs.setdefault(codec.name, codec)
    return codecs


def codecFor(codec: IHeartbeatCodec | str) -> IHeartbeatCodec:
    """
    @param codec: a codec or the name of one.
    @raise ValueError: when there is no codec of this name; the message lists the names.
    @raise TypeError: when C{codec} is neither.
    """
    if isinstance(codec, str):
        codecs = installedCodecs()
        if codec not in codecs:
            raise ValueError(f"there is no codec {codec!r}: it is one of {', '.join(codecs)}")
        return codecs[codec]
    if not IHeartbeatCodec.providedBy(codec):
        raise TypeError(f"a codec is an instance such as LineCodec(), or a name, not {codec!r}")
    return codec


def policyFor(policy: IKeepAlivePolicy | Policy | int) -> IKeepAlivePolicy:
    """
    @param policy: a policy, or a mode: 0, 1 or 2.
    @raise ValueError: when there is no such mode.
    @raise TypeError: when C{policy} is neither.
    """
    if isinstance(policy, int):
        if not 0 <= policy < len(MODES):
            raise ValueError(f"a mode is 0, 1 or 2, not {policy}")
        return MODES[policy]
    if not IKeepAlivePolicy.providedBy(policy):
        raise TypeError(f"a policy is an instance such as Mandatory(), or a mode, not {policy!r}")
    return policy
