"""
Several processes that serve as one (C{--workers}): a parent that listens, supervises and is
administered, and workers that accept and serve.
"""
