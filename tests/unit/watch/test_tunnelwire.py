"""
Tests for L{kaproto.watch.tunnelwire} and L{kaproto.watch.tunnelmessages}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kaproto.errors import RemoteProtocolError
from kaproto.watch.interfaces import Control, IControlMessages, Kind
from kaproto.watch.tunnelmessages import END, TUNNEL_PROGRAM
from kaproto.watch.tunnelwire import TunnelWire
from kaproto.wire.message import PING, PONG, Message, MessageType, packMessage
from tests.unit.watch.test_framing import pieces
from tests.unit.watch.test_tunnel import MESSAGES


class WireTests(SynchronousTestCase):
    """
    Tests for the bytes in a tunnel.
    """

    def test_messages(self) -> None:
        """
        The tunnel's messages provide L{IControlMessages}.
        """
        verifyObject(IControlMessages, MESSAGES)

    @given(st.lists(st.binary(max_size=30)), st.data())
    def test_transparent(self, written: list[bytes], data: st.DataObject) -> None:
        """
        The application's stream arrives unchanged without the control messages, no matter how it is
        split.
        """
        sender, receiver = TunnelWire(server=False), TunnelWire(server=True)
        stream = MESSAGES.ask(2.5)
        pings = 0
        for each in written:
            stream += sender.wrap(each)
            if data.draw(st.booleans()):
                stream += PING + PONG
                pings += 1
        stream += END
        heard, controls = b"", []
        for part in pieces(data, stream):
            for found in receiver.feed(part):
                if isinstance(found, Control):
                    controls.append(found)
                else:
                    heard += found
        between = [Control(Kind.PING), Control(Kind.PONG)] * pings
        self.assertEqual(heard, b"".join(written))
        self.assertEqual(controls, [Control(Kind.ASK, 2.5), *between, Control(Kind.END)])
        self.assertTrue(receiver.between)

    @given(st.booleans(), st.booleans(), st.binary(max_size=200), st.data())
    def test_anything(self, server: bool, opened: bool, stream: bytes, data: st.DataObject) -> None:
        """
        Arbitrary bytes pass as plain, are read as a tunnel's, or raise L{RemoteProtocolError}.
        """
        wire = TunnelWire(server=server)
        if opened:
            list(wire.feed(MESSAGES.ask(1) if server else MESSAGES.answer(1)))
        heard = b""
        try:
            for part in pieces(data, stream):
                for found in wire.feed(part):
                    if isinstance(found, bytes):
                        heard += found
        except RemoteProtocolError:
            return
        if wire.plain:
            self.assertEqual(heard, stream)
        self.assertLessEqual(len(wire._partial), 8300)

    def test_notInATunnel(self) -> None:
        """
        Messages that are not valid in a tunnel raise L{RemoteProtocolError}.
        """
        ask = MESSAGES.ask(1)
        for message in (
            ask + ask,
            ask + MESSAGES.answer(1),
            ask + PING[:12] + b"\0\0\0\3" + PING[16:],
            ask + packMessage(Message(1, 1, 1, 0, 0, 0)),
            ask + b"\0\0\0\1" + PING[4:],
            ask + END + END,
            ask + END + TunnelWire(server=False).wrap(b"x"),
            ask + b"\x7f\0\0\0" + TunnelWire(server=False).wrap(b"x")[4:],
        ):
            wire = TunnelWire(server=True)
            self.assertRaises(RemoteProtocolError, list, wire.feed(message))

    def test_longRefusal(self) -> None:
        """
        A long reason is truncated, so that the client can read the refusal.
        """
        wire = TunnelWire(server=False)
        (control,) = wire.feed(MESSAGES.refusal("\U0001f494" * 5000, b""))
        assert isinstance(control, Control)
        self.assertEqual(control.reason, "\U0001f494" * 2000)

    def test_ended(self) -> None:
        """
        As with TCP, bytes written after the end of the stream are dropped.
        """
        wire = TunnelWire(server=False)
        self.assertFalse(wire.isWaiting(PING))
        self.assertEqual(wire.end() + wire.wrap(b"x"), END)

    def test_fewPieces(self) -> None:
        """
        Data of messages that arrive together is returned in one piece, and a part of a longer
        message without a copy.
        """
        sender, receiver = TunnelWire(server=False), TunnelWire(server=True)
        list(receiver.feed(MESSAGES.ask(1)))
        data = b"".join(map(sender.wrap, (b"ab", b"c", b"d" * 100)))
        self.assertEqual(list(receiver.feed(data[:-50])), [b"abc" + b"d" * 50])
        rest = data[-50:]
        self.assertIs(next(iter(receiver.feed(rest))), rest)
        ping = [Control(Kind.PING)]
        self.assertEqual(list(receiver.feed(data[:30] + PING)), [b"ab", *ping])

    def test_badOpening(self) -> None:
        """
        An invalid first message raises L{RemoteProtocolError}.
        """
        for kind, payload in ((MessageType.REPLY, b"\0\0\0\1"), (MessageType.STREAM, b"\0\0\0\1")):
            message = packMessage(Message(TUNNEL_PROGRAM, 1, 1, kind, 0, 0, payload))
            self.assertRaises(RemoteProtocolError, list, TunnelWire(server=True).feed(message))
