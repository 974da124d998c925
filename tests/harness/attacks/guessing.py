"""
Attacks on passwords, and measurements of logins during them.
"""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from statistics import median

from tests.harness.attacks.honest import Login, characters, enter
from tests.harness.attacks.rawsocket import Address, Outcome, RawPeer, connect
from tests.interop import wire

__all__ = [
    "beside",
    "burst",
    "challenges",
    "checks",
    "churn",
    "flood",
    "guess",
    "hostileNames",
    "logIn",
    "logInQuietly",
]

AUTH_LIST = 66
SASL_INIT = 67
SASL_START = 68

_numbers = count()


def _start(mechanism: str, data: bytes) -> bytes:
    return wire.encode(SASL_INIT) + wire.encode(
        SASL_START, wire.string(mechanism) + characters(data), serial=1
    )


def guess(user: str, mechanism: str = "PLAIN") -> bytes:
    """
    @return: the messages of a login with a new wrong password.
    """
    number = next(_numbers)
    if mechanism == "PLAIN":
        return _start("PLAIN", f"\0{user}\0guess {number}".encode())
    return _start("SCRAM-SHA-256", f"n,,n={user},r={number:08}".encode())


def churn(address: Address, peers: int, seconds: float, user: str = "alice") -> Outcome:
    """
    Guess as fast as connections can be made: up to C{peers} at a time, each with three guesses, and
    closed after 20 ms, within which the right password would be answered.
    """
    deadline = time.monotonic() + seconds
    ends: Counter[str] = Counter()
    crowd: list[RawPeer] = []
    while time.monotonic() < deadline:
        while len(crowd) < peers and time.monotonic() < deadline:
            try:
                peer = RawPeer(address, timeout=1)
            except OSError as problem:
                ends[f"not accepted: {type(problem).__name__}"] += 1
                break
            peer.send(guess(user) + guess(user) + guess(user))
            ends["guessed"] += 3
            crowd.append(peer)
        now = time.monotonic()
        while crowd and now - crowd[0].begun > 0.02:
            crowd.pop(0).socket.close()
        time.sleep(0.0005)
    for peer in crowd:
        peer.socket.close()
    rate = ends["guessed"] / seconds
    return Outcome(ends["guessed"], ends, note=f"{rate:,.0f} a second")


def flood(
    address: Address,
    peers: int,
    seconds: float,
    user: str = "alice",
    mechanism: str = "PLAIN",
) -> Outcome:
    """
    Guess on many connections at a time: each waits for the answer before its next guess, and is
    replaced when the server closes it.
    """
    deadline = time.monotonic() + seconds
    ends: Counter[str] = Counter()
    poll = select.poll()
    crowd: dict[int, RawPeer] = {}
    while time.monotonic() < deadline:
        while len(crowd) < peers:
            try:
                peer = RawPeer(address, timeout=1)
            except OSError as problem:
                ends[f"not accepted: {type(problem).__name__}"] += 1
                break
            crowd[peer.socket.fileno()] = peer
            poll.register(peer.socket, select.POLLIN)
            peer.send(guess(user, mechanism))
            ends["sent"] += 1
        for number, _event in poll.poll(50):
            peer = crowd[number]
            peer.takeIn()
            if peer.ended is not None:
                poll.unregister(number)
                crowd.pop(number).socket.close()
                continue
            for frame in peer.frames:
                if frame.serial == 1:
                    ends["answered"] += 1
                    peer.send(guess(user, mechanism))
                    ends["sent"] += 1
            peer.frames.clear()
    for peer in crowd.values():
        peer.socket.close()
    return Outcome(ends["answered"], ends, note=f"{ends['answered'] / seconds:,.1f} a second")


def logIn(address: Address, login: Login, delay: float, timeout: float) -> Outcome:
    """
    Log in once with the right password, C{delay} seconds after the attack began.
    """
    time.sleep(delay)
    begun = time.monotonic()
    enter(address, login, timeout).socket.close()
    return Outcome(1, Counter({"logged in": 1}), [time.monotonic() - begun])


def checks(address: Address, login: Login, seconds: float) -> Outcome:
    """
    Log in repeatedly with the right password.

    @return: the seconds from the password to the answer, without the time a connection waits to be
        accepted.
    """
    name, password = login
    deadline = time.monotonic() + seconds
    took = []
    while time.monotonic() < deadline:
        peer = RawPeer(address, timeout=10)
        peer.call(AUTH_LIST, timeout=10)
        peer.call(SASL_INIT, timeout=10)
        plain = wire.string("PLAIN") + characters(f"\0{name}\0{password}".encode())
        begun = time.monotonic()
        peer.call(SASL_START, plain, 10)
        took.append(time.monotonic() - begun)
        peer.socket.close()
        time.sleep(0.05)
    return Outcome(len(took), Counter({"logged in": len(took)}), took)


def logInQuietly(address: Address, login: Login, times: int = 7) -> float:
    """
    Log in repeatedly, without an attack.

    @return: the median seconds of a login.
    """
    return median(logIn(address, login, 0.02, 10).seconds[0] for _ in range(times))


def burst(address: Address, peers: int, login: Login, user: str = "mallory") -> Outcome:
    """
    Guess once on each of many connections at the same time, and then log in as a user.
    """
    crowd = [RawPeer(address, timeout=1) for _ in range(peers)]
    for peer in crowd:
        peer.send(guess(user))
    outcome = logIn(address, login, 0.02, 60)
    for peer in crowd:
        peer.socket.close()
    return outcome


def beside(
    address: Address, login: Login, attack: Callable[..., Outcome], *sizes: object
) -> Outcome:
    """
    Run an attack, and during it log in as a user who has not logged in before.

    @return: the outcome of the attack, with the seconds of the user's login.
    """
    with ThreadPoolExecutor(1) as thread:
        user = thread.submit(logIn, address, login, 1.0, 110.0)
        outcome = attack(address, *sizes)
        return outcome._replace(
            seconds=user.result().seconds, note=f"{outcome.note}, with a stranger beside it"
        )


def challenges(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Begin SCRAM with a new name each time and close, so that the server hashes a password each time.
    """
    deadline = time.monotonic() + seconds
    ends: Counter[str] = Counter()
    while time.monotonic() < deadline:
        batch = []
        for _ in range(peers):
            one = connect(address)
            one.sendall(guess(f"user {next(_numbers)}", "SCRAM-SHA-256"))
            batch.append(one)
            ends["begun"] += 1
        for one in batch:
            one.close()
    return Outcome(ends["begun"], ends)


def hostileNames(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Send the longest possible user names and passwords, of a character that SASLprep expands to 18.
    """
    big = ("\ufdfa" * 1350).encode()
    messages = [
        _start("SCRAM-SHA-256", b"n,,n=" + big + b",r=x"),
        _start("SCRAM-SHA-256", b"n,,n=a,r=x,x=" + big),
        _start("PLAIN", b"\0" + big + b"\0x"),
        _start("PLAIN", b"\0alice\0" + big),
        _start("PLAIN", b"\0" + big[:255] + b"\0" + big[:1023]),
    ]
    deadline = time.monotonic() + seconds
    ends: Counter[str] = Counter()
    while time.monotonic() < deadline:
        batch = []
        for number in range(peers):
            one = connect(address)
            one.sendall(messages[number % len(messages)])
            batch.append(one)
            ends["sent"] += 1
        time.sleep(0.02)
        for one in batch:
            one.close()
    return Outcome(ends["sent"], ends)
