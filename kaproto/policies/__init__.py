"""
Policies: whether each peer is pinged, and whether it may open.
"""

from kaproto.policies.exceptions import Exceptions
from kaproto.policies.modes import MODES, Disable, Mandatory, Optional, Policy, refusalFor

__all__ = ["MODES", "Disable", "Exceptions", "Mandatory", "Optional", "Policy", "refusalFor"]
