"""
What a server does with odd input, and whether two servers do the same.
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
Seconds to watch a server that should go on waiting.
"""


class _Reply(NamedTuple):
    """
    A reply without what may differ between two servers that agree.
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
    What a server did with one piece of odd input.

    @ivar replies: what came back, apart from the answers to the questions around it.
    @ivar closed: whether the connection was closed.
    """

    replies: tuple[_Reply, ...]
    closed: bool


def _summary(frame: Frame) -> _Reply:
    """
    @return: the reply without its time; and without the host's name, in which two servers may
        differ by the domain.
    """
    payload = b"" if frame.procedure == wire.GET_HOSTNAME else frame.payload
    return _Reply(*frame[1:7], frame.error or payload)


def meets(outcome: Outcome, row: Row) -> bool:
    """
    @return: whether a server did what C{row} says that servers do.
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
    @return: whether two servers did the same.  The text of an error may go on, after a semicolon,
        where the first server's ends.
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
    Ask twice for something that can be asked at any time.  The second answer is there so that a
    reply to the odd input, which may come out of order, has come as well.

    @return: whether both questions were answered before the connection was lost.
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
    @raise AssertionError: when neither a reply nor the end of the connection comes where one of
        them is expected.
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
