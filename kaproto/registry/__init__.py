"""
The registry: lists the clients of all nodes of a fleet, and carries orders to the nodes.
"""
