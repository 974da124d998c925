"""
What a server has seen of its clients, kept for its operators.
"""
