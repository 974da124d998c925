"""
A codec for the protocol of another package, which that package offers as a plugin.
"""

from kaproto.watch import LineCodec, Words


class AcmeCodec(LineCodec):
    """
    Lines that end in a line feed, in a protocol that has had C{NOOP} from the beginning.
    """

    name = "acme"

    def __init__(self) -> None:
        super().__init__(Words(ping=b"NOOP", pong=b"NOOP OK"), delimiter=b"\n")


acme = AcmeCodec()
