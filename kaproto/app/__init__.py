"""
C{twistd kaserver}: from the command line to a running service.
"""
