"""
Policies: how far keepalive goes with each peer.
"""

from kaproto.policies.modes import MODES, REFUSAL, Disable, Mandatory, Optional, Policy

__all__ = ["MODES", "REFUSAL", "Disable", "Mandatory", "Optional", "Policy"]
