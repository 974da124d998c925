"""
The first minutes with kaproto, as the pages tell them, in a checkout that is new.
"""
