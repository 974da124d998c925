"""
The plugins for C{twistd kaserver}, and for its policies: the three modes and C{rules}.
"""

from twisted.application.service import ServiceMaker

from kaproto.policies import MODES
from kaproto.policies.rules import RulesPolicy

kaserver = ServiceMaker(
    "kaserver",
    "kaproto.app.service",
    "libvirt's RPC with negotiated keepalive: disabled, optional or mandatory.",
    "kaserver",
)
disable, optional, mandatory = MODES
rules = RulesPolicy()
