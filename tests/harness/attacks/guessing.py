"""
Peers that guess passwords, and what logging in costs.
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
    @return: the messages that guess a password, another one each time.
    """
    number = next(_numbers)
    if mechanism == "PLAIN":
        return _start("PLAIN", f"\0{user}\0guess {number}".encode())
    return _start("SCRAM-SHA-256", f"n,,n={user},r={number:08}".encode())


def churn(address: Address, peers: int, seconds: float, user: str = "alice") -> Outcome:
    """
    Guess as fast as connections can be made: up to C{peers} at a time, each for three guesses, and
    closed after the 20 ms in which the right password would be answered.
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
    Guess on many connections at a time: each waits for the answer to its guess, sends the next, and
    is replaced when the server closes it.
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
    A user who logs in once, some time after the attack began, by the right password.
    """
    time.sleep(delay)
    begun = time.monotonic()
    enter(address, login, timeout).socket.close()
    return Outcome(1, Counter({"logged in": 1}), [time.monotonic() - begun])


def checks(address: Address, login: Login, seconds: float) -> Outcome:
    """
    A user who logs in again and again by the right password.

    @return: the seconds from the password to the answer, without those in which the kernel has the
        connection wait to be accepted.
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
    A user who logs in again and again, while nothing else happens.

    @return: the seconds that it usually takes.
    """
    return median(logIn(address, login, 0.02, 10).seconds[0] for _ in range(times))


def burst(address: Address, peers: int, login: Login, user: str = "mallory") -> Outcome:
    """
    Guess once on each of many connections at the same time, and have a user log in after them.
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
    An attack, and beside it a user who logs in for the first time.

    @return: what became of the attack, with the seconds that the user needed.
    """
    with ThreadPoolExecutor(1) as thread:
        user = thread.submit(logIn, address, login, 1.0, 110.0)
        outcome = attack(address, *sizes)
        return outcome._replace(
            seconds=user.result().seconds, note=f"{outcome.note}, with a stranger beside it"
        )


def challenges(address: Address, peers: int, seconds: float) -> Outcome:
    """
    Begin SCRAM with ever other names and leave, so that each time the server hashes a password.
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
    User names, and passwords, as long as a message may be, of characters that SASLprep makes 18 of.
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
