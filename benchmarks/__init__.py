"""
Compares keepalive servers: the cost of a ping and its pong for each, measured in one run.
"""
