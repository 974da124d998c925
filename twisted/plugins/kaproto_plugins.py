"""
What kaproto plugs into Twisted: C{twistd kaserver}, and the three modes as policies.
"""

from twisted.application.service import ServiceMaker

from kaproto.policies import MODES

kaserver = ServiceMaker(
    "kaserver",
    "kaproto.app.service",
    "libvirt's RPC with negotiated keepalive: disabled, optional or mandatory.",
    "kaserver",
)
disable, optional, mandatory = MODES
