"""
Make the policy known to C{twistd kaserver}.
"""

from rollout import Rollout

policy = Rollout()
