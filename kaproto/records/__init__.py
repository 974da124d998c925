"""
Records of a server's clients for operators: counters, log lines, the latest endings and refusals.
"""
