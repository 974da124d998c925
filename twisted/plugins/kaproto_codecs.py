"""
The plugins for kaproto's own codecs, those of C{kaproto.watch}.
"""

from kaproto.watch.choices import CODECS

lines, netstrings, int8, int16, int32, amp = CODECS
