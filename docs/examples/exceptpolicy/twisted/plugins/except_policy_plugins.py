"""
Make the policy known to C{twistd kaserver}.
"""

from exceptpolicy import Except

policy = Except()
