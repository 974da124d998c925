"""
A codec for another package's protocol, which that package provides as a plugin.
"""

from kaproto.watch import LineCodec, Words


class AcmeCodec(LineCodec):
    """
    Lines that end in a line feed, with the protocol's own C{NOOP} as the ping.
    """

    name = "acme"

    def __init__(self) -> None:
        super().__init__(Words(ping=b"NOOP", pong=b"NOOP OK"), delimiter=b"\n")


acme = AcmeCodec()
