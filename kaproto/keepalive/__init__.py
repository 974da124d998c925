"""
Keepalive: who is alive, and when to ask.
"""
