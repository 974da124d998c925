"""
Keepalive servers side by side: what a ping and its pong cost each, from one run.
"""
