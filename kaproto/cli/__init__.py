"""
The C{kaproto} command.
"""
