"""
The data in Redis: keys, limits, and the two scripts that write and read them.

For a node named C{host1}:

  - C{kaproto:nodes}, a sorted set: the names of nodes, by the time of their last write.
  - C{kaproto:node:host1}, a hash: C{epoch}, see below; C{about}, a JSON object about the server;
    C{begun}, how often the list was written from the beginning in this epoch; C{complete}, 1 if
    all clients are listed; C{refused}, an array.
  - C{kaproto:lease:host1}, a string that expires when the node has not written for a while.
  - C{kaproto:clients:host1}, a hash: a JSON object for each client, by the number of its
    connection.

Two channels carry orders: C{kaproto:order:host1}, which the node subscribes to, and
C{kaproto:answer:TOKEN}, on which it answers.

An B{epoch} is a number that grows with every start of a node: the time of the start in seconds
since 1970, or one more than the last epoch, if that is larger.  The script that writes compares
epochs, so an older process never overwrites the data of a newer one::

    host1 starts, gets epoch 1700000000, and is stopped (SIGSTOP)
    host1 is started again, and gets epoch 1700000060
    the first process continues, writes with 1700000000, and gets "superseded 1700000060"
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from kaproto.records.who import TEXT_MAX

__all__ = [
    "KEPT",
    "LEASE",
    "NODES",
    "NODE_NAME",
    "READ",
    "REFUSED_MAX",
    "WRITE",
    "answerChannel",
    "encode",
    "keysOf",
    "nodeNames",
    "orderChannel",
]

NODE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
"""
The names that nodes may have.
"""

LEASE: Final = 15
"""
Seconds without a write after which a node is shown as gone.
"""

KEPT: Final = 86_400
"""
Seconds for which a node's last data is kept.
"""

REFUSED_MAX: Final = 100
"""
The most refused clients listed for each node.
"""

NODES: Final = "kaproto:nodes"


def keysOf(node: str) -> list[str]:
    """
    @return: a node's keys, in the order of both scripts' arguments.
    """
    return [f"kaproto:{what}:{node}" for what in ("node", "lease", "clients")] + [NODES]


def orderChannel(node: str) -> str:
    """
    @return: the channel on which a node gets orders.
    """
    return f"kaproto:order:{node}"


def answerChannel(token: str) -> str:
    """
    @return: the channel on which an order is answered.
    """
    return f"kaproto:answer:{token}"


def encode(values: Mapping[str, object]) -> str:
    """
    @return: a JSON object on one line of ASCII.  Strings are cut to L{TEXT_MAX} characters.
    """
    return json.dumps({name: _bounded(value) for name, value in values.items()})


def _bounded(value: object) -> object:
    if isinstance(value, str):
        return value[:TEXT_MAX]
    if isinstance(value, list):
        return [_bounded(each) for each in value[:REFUSED_MAX]]
    return value


def nodeNames(names: Sequence[object]) -> list[str]:
    """
    @return: the valid names of nodes among these, sorted.
    """
    return sorted(each for each in names if isinstance(each, str) and NODE_NAME.fullmatch(each))


WRITE: Final = """
local node, lease, clients, nodes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local name, action, about, refused, complete, count =
    ARGV[1], ARGV[2], ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
local begun = tonumber(ARGV[5])
local stored = tonumber(redis.call('HGET', node, 'epoch') or '0')
local epoch = tonumber(ARGV[3])
if epoch == 0 and redis.call('HGET', node, 'process') == ARGV[4] then epoch = stored end
if epoch == 0 then epoch = math.max(stored + 1, math.floor(tonumber(ARGV[4]))) end
local shown = string.format('%.0f', epoch)
if stored > epoch then return {ok = 'superseded ' .. string.format('%.0f', stored) .. ' 0'} end
local last = stored == epoch and tonumber(redis.call('HGET', node, 'begun') or '0') or 0
if last > begun then return {ok = 'unknown ' .. shown .. ' 0'} end
if action == 'leave' then
  if stored == epoch then
    redis.call('DEL', node, lease, clients)
    redis.call('ZREM', nodes, name)
  end
  return {ok = 'left ' .. shown .. ' 0'}
end
if action ~= 'begin' and (stored < epoch or last < begun) then
  return {ok = 'unknown ' .. shown .. ' 0'}
end
redis.call('HSET', node, 'epoch', shown, 'begun', ARGV[5], 'process', ARGV[4],
  'about', about, 'complete', complete)
if action == 'begin' then redis.call('DEL', clients) end
if refused ~= '' then redis.call('HSET', node, 'refused', refused) end
local first = 10
for at = first, first + 2 * count - 2, 2 do redis.call('HSET', clients, ARGV[at], ARGV[at + 1]) end
for at = first + 2 * count, #ARGV do redis.call('HDEL', clients, ARGV[at]) end
local now = tonumber(redis.call('TIME')[1])
redis.call('SET', lease, shown, 'EX', LEASE)
redis.call('EXPIRE', node, KEPT)
redis.call('EXPIRE', clients, KEPT)
redis.call('ZREMRANGEBYSCORE', nodes, '-inf', now - KEPT)
redis.call('ZADD', nodes, now, name)
return {ok = 'written ' .. shown .. ' ' .. redis.call('HLEN', clients)}
""".replace("LEASE", str(LEASE)).replace("KEPT", str(KEPT))
"""
Writes a node's changes, all or nothing: when its memory is full, Redis refuses the first C{HSET} of
a script, but none after a successful write.  The arguments:

  - the name
  - the action: C{begin} to delete all clients first, C{write} or C{leave}
  - the epoch, 0 to get one
  - the process: the time of its start, which becomes the epoch, with a fraction that tells it from
    other processes
  - how often C{begin} was sent in this epoch
  - the fields C{about}, C{refused} (empty if it has not changed) and C{complete}
  - the number of clients that follow, then their numbers and descriptions in pairs
  - the numbers of clients that have ended

It returns C{written EPOCH CLIENTS}, C{left EPOCH 0}, C{superseded EPOCH 0}, or C{unknown EPOCH 0}
when Redis has lost the node's data or has later data of the same epoch.
"""

READ: Final = """
local found = redis.call('HMGET', KEYS[1], 'epoch', 'about', 'complete', 'refused')
local clients = ''
if ARGV[1] == 'clients' then clients = table.concat(redis.call('HVALS', KEYS[3]), '\\n') end
return {found[1] or '', found[2] or '', found[3] or '', found[4] or '',
  tostring(redis.call('EXISTS', KEYS[2])), tostring(redis.call('HLEN', KEYS[3])), clients}
"""
"""
Reads a node atomically: epoch, about, complete, refused, whether it has its lease, and the number
of clients.  With the argument C{clients} it also returns a line of JSON for each client.
"""
