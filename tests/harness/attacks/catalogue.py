"""
Every attack at full size.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from tests.harness.attacks import floods, guessing, limits, resets, secure, slow
from tests.harness.attacks.rawsocket import Address, Outcome
from tests.harness.attacks.targets import KaTarget, LibvirtTarget, Target
from tests.interop import wire

__all__ = ["ATTACKS", "KEEPALIVE", "LOGIN", "SETTINGS", "STRANGER", "Attack", "Make"]

LOGIN = ("alice", "open sesame")
STRANGER = ("bob", "sesame open")
KEEPALIVE = ("--mode=2", "--interval=1", "--count=2")
SETTINGS = "keepalive_interval = 1\nkeepalive_count = 2\n"
"""
The same keepalive settings for libvirtd.
"""

_FILES = 120
_CLIENTS = 50
_FULL = "max_clients = 10\nmax_anonymous_clients = 5\n"

Make = Callable[[ExitStack], Target]


class Attack(NamedTuple):
    """
    One attack.

    @ivar name: its name on the command line.
    @ivar what: its description in the table.
    @ivar run: runs it.
    @ivar seconds: the most seconds it may take.
    @ivar ours: starts the kaserver to attack.
    @ivar theirs: starts the libvirtd to compare with; C{None} for no comparison.
    @ivar early: whether it attacks before authentication.
    @ivar alone: whether it runs without newcomers, who could not connect.
    """

    name: str
    what: str
    run: Callable[[Address], Outcome]
    seconds: float
    ours: Make
    theirs: Make | None
    early: bool = False
    alone: bool = False


def _plain(stack: ExitStack, *arguments: str, files: int | None = None) -> Target:
    return stack.enter_context(KaTarget(*KEEPALIVE, *arguments, files=files))


def _login(stack: ExitStack) -> Target:
    return stack.enter_context(KaTarget(*KEEPALIVE, login=LOGIN))


def _users(stack: ExitStack, *arguments: str, iterations: int | None = None) -> Target:
    return stack.enter_context(
        KaTarget(*KEEPALIVE, *arguments, login=LOGIN, others=[STRANGER], iterations=iterations)
    )


def _secure(stack: ExitStack, *, newest: bool = False) -> Target:
    return stack.enter_context(secure.TLSTarget(*KEEPALIVE, newest=newest))


def _gateway(stack: ExitStack) -> Target:
    upstream = stack.enter_context(LibvirtTarget(SETTINGS))
    return stack.enter_context(KaTarget(*KEEPALIVE, upstream=upstream))


def _fullGateway(stack: ExitStack) -> Target:
    upstream = stack.enter_context(LibvirtTarget(SETTINGS + _FULL))
    return stack.enter_context(KaTarget("--mode=1", upstream=upstream))


def _libvirtd(stack: ExitStack, settings: str = "", files: int | None = None) -> Target:
    return stack.enter_context(LibvirtTarget(SETTINGS + settings, files=files))


def _attack(
    name: str,
    what: str,
    run: Callable[..., Outcome],
    *sizes: object,
    seconds: float = 30,
    ours: Make = _plain,
    theirs: Make | None = _libvirtd,
    early: bool = False,
    alone: bool = False,
) -> Attack:
    def go(address: Address) -> Outcome:
        return run(address, *sizes)

    return Attack(name, what, go, seconds, ours, theirs, early, alone)


_before = partial(_attack, ours=_login, early=True)
_guess = partial(_attack, ours=_users, theirs=None, early=True, seconds=60)
_tls = partial(_attack, ours=_secure, theirs=None)
_call = wire.encode(wire.GET_HOSTNAME)
_reply = wire.encode(wire.GET_HOSTNAME, kind=wire.REPLY)

ATTACKS = (
    _before("drip-first", "a byte a second before authentication", slow.dripFirst, 200, 14),
    _attack("drip-open", "a byte a second of the open call", slow.dripOpen, 200, 14),
    _attack("drip-call", "a byte a second of a call", slow.dripCall, 200, 14),
    _before("idle", "nothing said, not authenticated", slow.idle, 1000, 14),
    _before(
        "announced-first",
        "32 MiB announced before authentication",
        partial(slow.announced, early=True),
        200,
        14,
    ),
    _attack("announced", "32 MiB announced, pings unanswered", slow.announced, 1000, 10),
    _attack("half-close", "one direction closed, in 5 states", slow.halfClose, 1000, 10),
    _attack("ping-flood", "pings as fast as they go", floods.flood, 20, 6, wire.PING),
    _attack("pong-flood", "pongs nobody asked for", floods.flood, 20, 6, wire.PONG),
    _attack("call-flood", "calls as fast as they go", floods.flood, 20, 6, _call),
    _attack("reply-flood", "replies to nothing", floods.flood, 20, 6, _reply),
    _attack(
        "gateway-pongs", "pongs through the gateway", floods.flood, 20, 6, wire.PONG, ours=_gateway
    ),
    _attack(
        "gateway-calls", "calls through the gateway", floods.flood, 20, 6, _call, ours=_gateway
    ),
    _attack("single-bytes", "a packet for each byte", floods.singleBytes, 20, 6),
    _attack("unread-pongs", "pings, and reads nothing", floods.unreadPongs, 20, 14),
    _attack("unread-events", "wants events, reads none", floods.neverReading, 2, 25, ours=_gateway),
    *(
        _tls(
            f"tls-{name.replace(' ', '-')}",
            f"TLS handshakes with {name}",
            partial(secure.strangers, chain=name),
            8,
            early=True,
        )
        for name in secure.CHAINS
    ),
    _tls("tls-renegotiation", "TLS 1.2 renegotiation", secure.renegotiations, 20, 20),
    _tls(
        "tls-key-updates",
        "TLS 1.3 key updates",
        secure.keyUpdates,
        20,
        20,
        ours=partial(_secure, newest=True),
    ),
    _tls("tls-endless", "a TLS handshake without end", secure.endless, 200, 20, early=True),
    _tls("tls-announced", "128 KiB of TLS announced", secure.announced, 1000, 8, early=True),
    _attack("resets", "RST in 9 states", resets.resets, 200, resets.STATES),
    _attack(
        "gateway-resets",
        "RST in 10 states",
        resets.resets,
        50,
        resets.GATEWAY_STATES,
        ours=_gateway,
    ),
    _attack(
        "refusal-resets",
        "RST while being refused",
        resets.resets,
        500,
        resets.REFUSAL_STATES,
        theirs=None,
    ),
    _before(
        "login-resets", "RST while logging in", resets.resets, 200, resets.LOGIN_STATES, theirs=None
    ),
    _guess(
        "guess-known",
        "the honest user's own password, on ever new connections",
        guessing.beside,
        STRANGER,
        guessing.churn,
        40,
        8,
    ),
    _guess(
        "guess-network",
        "another user's password, on 50 connections",
        guessing.beside,
        STRANGER,
        guessing.flood,
        50,
        20,
        "mallory",
    ),
    _guess(
        "guess-crowd",
        "the same, on 300 connections, --auth-delay=0.1",
        guessing.beside,
        STRANGER,
        guessing.flood,
        300,
        20,
        "mallory",
        ours=lambda stack: _users(stack, "--auth-delay=0.1"),
    ),
    _guess(
        "guess-hashed",
        "another user's password, hashed 600,000 times",
        guessing.flood,
        50,
        10,
        "mallory",
        ours=lambda stack: _users(stack, iterations=600_000),
    ),
    _guess("challenges", "SCRAM begun and left", guessing.challenges, 40, 8),
    _guess("hostile-names", "names that SASLprep makes long", guessing.hostileNames, 40, 8),
    _attack("come-and-go", "connect and leave", floods.comeAndGo, 100_000, 60, seconds=80),
    _attack(
        "files",
        f"a limit of {_FILES} open files",
        limits.exhaust,
        300,
        5,
        ours=partial(_plain, files=_FILES),
        theirs=partial(_libvirtd, files=_FILES),
        alone=True,
    ),
    _attack(
        "files-forced",
        "the same, --max-clients=1000",
        limits.exhaust,
        300,
        5,
        ours=lambda stack: _plain(stack, "--max-clients=1000", files=_FILES),
        theirs=None,
        alone=True,
    ),
    _attack(
        "max-clients",
        f"one by one, {_CLIENTS} allowed",
        limits.crowd,
        _CLIENTS + 10,
        0.5,
        ours=lambda stack: _plain(stack, f"--max-clients={_CLIENTS}"),
        theirs=lambda stack: _libvirtd(stack, f"max_clients = {_CLIENTS}\n"),
        alone=True,
    ),
    _attack(
        "upstream-full",
        "8 let in by libvirtd, then 5 more",
        limits.latecomers,
        8,
        5,
        14,
        ours=_fullGateway,
        theirs=lambda stack: _libvirtd(stack, _FULL),
        alone=True,
    ),
)
"""
The attacks that run beside honest clients.
"""
