"""
What a server does with unusual input, and whether two servers do the same.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from tests.interop import wire
from tests.interop.oddities import Row
from tests.interop.rawclient import RawClient
from tests.interop.support import InteropTestCase, pause, waitUntil
from tests.interop.wire import Frame, WireError

__all__ = ["Outcome", "agree", "meets", "observe"]

QUIET = 0.25
"""
Seconds to watch a server that should keep waiting.
"""


class _Reply(NamedTuple):
    """
    A reply without the parts in which two servers may differ.
    """

    program: int
    version: int
    procedure: int
    kind: int
    serial: int
    status: int
    content: WireError | bytes


class Outcome(NamedTuple):
    """
    What a server did with one piece of unusual input.

    @ivar replies: its replies, apart from those to the calls that L{observe} adds.
    @ivar closed: whether the connection was closed.
    """

    replies: tuple[_Reply, ...]
    closed: bool


def _summary(frame: Frame) -> _Reply:
    """
    @return: the reply without its time, and without the host name: two servers may differ in its
        domain part.
    """
    payload = b"" if frame.procedure == wire.GET_HOSTNAME else frame.payload
    return _Reply(*frame[1:7], frame.error or payload)


def meets(outcome: Outcome, row: Row) -> bool:
    """
    @return: whether the outcome is the one that C{row} expects.
    """
    if outcome.closed != (row.expected in {"closed", "goodbye"}):
        return False
    if row.expected == "waits":
        return True
    if row.expected in {"closed", "ignored"}:
        return not outcome.replies
    if len(outcome.replies) != 1:
        return False
    (reply,) = outcome.replies
    if row.expected == "pong":
        return (reply.program, reply.procedure, reply.kind) == (wire.KEEPALIVE, 2, wire.MESSAGE)
    if row.expected in {"fine", "goodbye"}:
        return (reply.kind, reply.status) == (wire.REPLY, 0)
    return (reply.kind, reply.status, reply.content) == (wire.REPLY, 1, row.expected)


def _over(client: RawClient, serial: int) -> bool:
    return client.replyTo(serial) is not None or client.lostAt is not None


def agree(theirs: Outcome, ours: Outcome) -> bool:
    """
    @return: whether two servers did the same.  The second server's error message may continue after
        a semicolon.
    """
    return ours.closed == theirs.closed and list(map(_withoutMore, ours.replies)) == list(
        map(_withoutMore, theirs.replies)
    )


def _withoutMore(reply: _Reply) -> _Reply:
    if isinstance(reply.content, bytes):
        return reply
    message = reply.content.message.partition("; ")[0]
    return reply._replace(content=reply.content._replace(message=message))


async def _answers(client: RawClient) -> bool:
    """
    Make two calls that are allowed at any time.  Replies may arrive out of order; when the second
    has arrived, so has any reply to the unusual input.

    @return: whether both calls were answered before the connection was lost.
    """
    for _time in range(2):
        serial = client.sendCall(wire.AUTH_LIST)
        over = partial(_over, client, serial)
        await waitUntil(over, "an answer or the end")
    return client.lostAt is None


async def observe(case: InteropTestCase, port: int, row: Row) -> Outcome:
    """
    Send one row to a server.

    @param port: the loopback port of the server.
    @raise AssertionError: when neither a reply nor a close arrives where the row expects one.
    """
    client = await RawClient.connect(case, port)
    if row.opened:
        await client.open()
    before = len(client.frames)
    client.write(row.data)
    if row.expected == "waits":
        await pause(QUIET)
        closed = client.lostAt is not None
    elif row.expected in {"closed", "goodbye"}:
        await waitUntil(lambda: client.lostAt, f"{row.name}: the end of the connection")
        closed = True
    else:
        if row.expected != "ignored":
            await waitUntil(
                lambda: len(client.frames) > before or client.lostAt, f"{row.name}: any reply"
            )
        closed = not await _answers(client)
    replies = tuple(
        _summary(frame) for frame in client.frames[before:] if frame.procedure != wire.AUTH_LIST
    )
    await client.disconnect()
    return Outcome(replies, closed)
