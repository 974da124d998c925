"""
Several processes that act as one server (C{--workers}): a parent that listens, supervises and is
administered, and workers that accept and serve clients.
"""
