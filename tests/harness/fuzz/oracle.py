"""
The allowed outcomes of each frame, derived from the protocol and not from kaproto's code.

A judge sees each frame that an attacker sends, together with what was written because of it.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Final, NamedTuple

from kaproto.errors import KaprotoError, PeerFlooded, RemoteProtocolError
from tests.harness.fuzz.tap import Tap
from tests.harness.fuzz.targets import Subject

__all__ = [
    "CALL_WITH_FDS",
    "ClientJudge",
    "Judge",
    "RelayJudge",
    "ServerJudge",
    "Violation",
    "Wire",
    "cutAll",
    "cutOne",
    "isOpen",
    "judgeFor",
    "require",
]

REMOTE: Final = 0x20008086
QEMU: Final = 0x20008087
LXC: Final = 0x00068000
KEEPALIVE: Final = 0x6B656570
ECHO: Final = (0x2F000001, 1)
LATER: Final = (0x2F000001, 2)
LONGEST: Final = 33554436
CALL, REPLY, MESSAGE, STREAM, CALL_WITH_FDS, REPLY_WITH_FDS, STREAM_HOLE = range(7)
OPEN, CLOSE, FEATURE, SET_IDENTITY = 1, 2, 60, 419
AUTHENTICATION: Final = range(66, 71)
PONG: Final = struct.pack(">IIIiIIi", 28, KEEPALIVE, 1, 2, MESSAGE, 0, 0)
RETURNS_FDS: Final = {(REMOTE, 343), (LXC, 1)}
FDS_MAX: Final = 32
WHOLE_MAX: Final = 65536
PINGS_MAX: Final = 100
RUNNING_MAX: Final = 20
BEFORE_AUTHENTICATION: Final = 16384
BEFORE_OPEN: Final = 65536


class Violation(AssertionError):
    """
    An outcome that the protocol does not allow.
    """


def require(condition: object, problem: str) -> None:
    """
    @raise Violation: unless the condition is true.
    """
    if not condition:
        raise Violation(problem)


class Wire(NamedTuple):
    """
    A frame on the wire.
    """

    program: int
    version: int
    procedure: int
    kind: int
    serial: int
    status: int
    payload: bytes
    raw: bytes

    @property
    def key(self) -> tuple[int, int, int, int]:
        """
        What a reply has in common with its call.
        """
        return (self.program, self.version, self.procedure, self.serial)


def cutOne(data: bytes, begin: int = 0) -> Wire | None:
    """
    @return: the frame at C{begin}; C{None} if it is incomplete.
    """
    if len(data) - begin < 28:
        return None
    length, *words = struct.unpack_from(">IIIiIIi", data, begin)
    if len(data) - begin < length:
        return None
    raw = bytes(data[begin : begin + length])
    return Wire._make((*words, raw[28:], raw))


def cutAll(data: bytes) -> tuple[list[Wire], bytes]:
    """
    @return: the frames, and the bytes after the last.
    @raise Violation: when a length is impossible.
    """
    found: list[Wire] = []
    begin = 0
    while len(data) - begin >= 4:
        (length,) = struct.unpack_from(">I", data, begin)
        require(28 <= length <= LONGEST, f"a frame of {length} bytes was written")
        frame = cutOne(data, begin)
        if frame is None:
            break
        found.append(frame)
        begin += length
    return found, bytes(data[begin:])


def errorIn(payload: bytes) -> tuple[int, str] | None:
    """
    @return: code and message of the error in a reply, C{None} if it is not an error.
    """
    if len(payload) < 12:
        return None
    code, _domain, there = struct.unpack_from(">iiI", payload)
    at, message = 12, ""
    if there:
        if len(payload) < 16:
            return None
        (size,) = struct.unpack_from(">I", payload, 12)
        end = 16 + size + -size % 4
        if size > 4194304 or end > len(payload):
            return None
        message = payload[16 : 16 + size].decode("utf-8", "surrogateescape")
        at = end
    return None if len(payload) - at < 4 else (code, message)


def isAsync(frame: Wire) -> bool:
    """
    @return: whether it is a keepalive message.
    """
    return frame.program == KEEPALIVE and frame.kind == MESSAGE


def isOpen(client: Tap) -> bool:
    """
    @return: whether a gateway's client has got a successful reply to its open.
    """
    return any(
        (frame.program, frame.procedure, frame.kind, frame.status) == (REMOTE, OPEN, REPLY, 0)
        for frame in cutAll(bytes(client.written))[0]
    )


class Judge:
    """
    Judges the outcome of each frame.

    @ivar outcomes: how often each outcome occurred.
    @ivar dropping: how many bytes after the latest frame are not a frame.
    """

    limit = LONGEST
    dropping = 0

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.outcomes: Counter[str] = Counter()
        self._pings = 0
        self._seen = {id(tap): len(tap.written) for tap in subject.taps}

    @property
    def over(self) -> bool:
        """
        Whether the attacked end has begun to close.
        """
        return self.subject.near.ending

    def written(self, *, far: bool = False) -> bytes:
        """
        @return: the bytes written to one side since the last call.
        """
        tap = self.subject.far if far else self.subject.near
        if tap is None:
            return b""
        begin = self._seen[id(tap)]
        self._seen[id(tap)] = len(tap.written)
        return bytes(tap.written[begin:])

    def frames(self) -> list[Wire]:
        """
        @return: the frames written to the attacker since the last call.
        """
        frames, rest = cutAll(self.written())
        require(not rest, f"half a frame was written: {rest.hex()}")
        return frames

    def judge(self, frame: Wire) -> None:
        """
        Judge the outcome of a frame.

        @raise Violation: when it is not allowed.
        """
        raise NotImplementedError

    def fragment(self, data: bytes) -> None:
        """
        Judge the outcome of bytes that are not a complete frame.
        """
        require(not self.written(), "something came of less than a frame")
        self.checkLength(data)

    def checkLength(self, data: bytes, least: int = 4) -> None:
        """
        Check that the connection was closed if, and only if, the length field is invalid.
        """
        bad = len(data) >= least and not 28 <= int.from_bytes(data[:4], "big") <= self.limit
        require(self.over == bad, f"closed: {self.over}, with {data[:28].hex()}")
        if bad:
            self.closed("protocolErrors", RemoteProtocolError)
        elif data:
            self.outcomes["unfinished"] += 1

    def dropped(self) -> None:
        """
        Judge the bytes that come with file descriptors.
        """
        self.dropping = 0
        require(not self.written() and not self.written(far=True), "something came of them")
        self.stays("descriptors")

    def closed(self, why: str, kind: type[Exception] = KaprotoError) -> None:
        """
        Check that the connection was closed for a reason of that kind.
        """
        require(self.over, f"it should be closed ({why})")
        reason = self.subject.near.protocol._kaproto.closing.reason
        require(isinstance(reason, kind), f"closed with {reason!r}, not {kind.__name__}")
        self.outcomes[f"closed: {why}"] += 1

    def stays(self, outcome: str) -> None:
        """
        Check that the connection was not closed.
        """
        require(
            not self.over, f"closed with {self.subject.near.protocol._kaproto.closing.reason!r}"
        )
        self.outcomes[outcome] += 1

    def keepAlive(self, frame: Wire) -> None:
        """
        Judge the outcome of a keepalive message.
        """
        if frame.version != 1 or frame.procedure != 1:
            self.nothing()
            return
        self._pings += 1
        if self._pings > PINGS_MAX:
            require(not self.written(), "something came of one ping too many")
            self.closed("flood", PeerFlooded)
            return
        self.pong()

    def pong(self) -> None:
        """
        Check that a ping got one pong.
        """
        require(self.written() == PONG, "a ping is answered with a pong")
        self.stays("pong")

    def nothing(self) -> None:
        """
        Check that the message was ignored.
        """
        require(not self.written(), "it should be ignored")
        self.stays("ignored")

    def finish(self) -> None:
        """
        Judge what is left when everything has been sent and time has passed.
        """

    def successor(self) -> Judge:
        """
        @return: the judge of the next frame.
        """
        return self


class ServerJudge(Judge):
    """
    For an attacker that is a client, while messages are not relayed.
    """

    def __init__(self, subject: Subject, *, login: bool, later: bool) -> None:
        """
        @param login: whether clients have to log in.
        @param later: whether C{CONNECT_OPEN} is answered later.
        """
        super().__init__(subject)
        self._login = login
        self._later = later
        self._owed: Counter[tuple[int, int, int, int]] = Counter()
        self._open = False
        self._in = not login
        for serial in subject.owed:
            self._owed[REMOTE, 1, OPEN, serial] += 1
        for each in cutAll(bytes(subject.near.written))[0]:
            self._note(each)

    @property
    def limit(self) -> int:  # type: ignore[override]
        """
        The longest message allowed.
        """
        if self._open:
            return LONGEST
        return BEFORE_OPEN if self._in else BEFORE_AUTHENTICATION

    def _note(self, reply: Wire) -> None:
        if reply.status == 0 and reply.program == REMOTE:
            if reply.procedure == OPEN:
                self._open = True
            elif reply.procedure in (68, 69) and reply.payload[:4] == b"\0\0\0\1":
                self._in = True

    def judge(self, frame: Wire) -> None:
        """
        Judge a keepalive message, a call, or another message, which is ignored.
        """
        kind, payload = frame.kind, frame.payload
        if isAsync(frame):
            self.keepAlive(frame)
        elif kind == CALL_WITH_FDS and payload[:4] != bytes(4):
            require(not self.written(), "it should be closed without a word")
            self.closed("descriptors", RemoteProtocolError)
        elif kind in (CALL, CALL_WITH_FDS):
            if kind == CALL_WITH_FDS:
                payload = payload[4:]
            self._call(frame._replace(payload=payload))
        else:
            self.nothing()

    def _call(self, call: Wire) -> None:
        self._owed[call.key] += 1
        frames = self.frames()
        for reply in frames:
            self._reply(reply, call)
        if not self._owed[call.key]:
            del self._owed[call.key]
        else:
            require(self._mayWait(call), "a call was not answered")
            self.outcomes["answered later"] += 1
        if self.over:
            self._ended(call, frames)

    def _mayWait(self, call: Wire) -> bool:
        """
        @return: whether a call need not be answered at once, because it or others before it take
            time.  Before the login every call waits for the one before it.
        """
        slow = {
            (REMOTE, 67): self._login,
            (REMOTE, 68): self._login,
            (REMOTE, 69): self._login,
            (REMOTE, OPEN): self._later,
            LATER: True,
        }
        waiting = sum(number for key, number in self._owed.items() if slow.get((key[0], key[2])))
        most = 1 if self._login and not self._in else RUNNING_MAX
        return slow.get((call.program, call.procedure), False) or waiting >= most

    def _reply(self, reply: Wire, call: Wire) -> None:
        require(reply.kind == REPLY, f"{reply} answers no call")
        require(self._owed[reply.key] > 0, f"{reply} answers another call")
        require(reply.status in (0, 1), f"{reply} is no reply")
        self._owed[reply.key] -= 1
        self._note(reply)
        error = errorIn(reply.payload) if reply.status else None
        if reply.status:
            require(error is not None, f"{reply} has no error in it")
        if reply.key == call.key:
            self._checkContent(reply, call, error)
        self.outcomes["error" if reply.status else "reply"] += 1

    def _checkContent(self, reply: Wire, call: Wire, error: tuple[int, str] | None) -> None:
        code, message = error or (0, "")
        require("internal error: procedure" not in message, f"a bug was hit: {message}")
        programs = (REMOTE,) if self._later else (REMOTE, ECHO[0])
        if call.version != 1 or call.program not in programs:
            require(message.startswith("Cannot find program "), message)
        elif call.status:
            require(message == f"Unexpected message status {call.status & 0xFFFFFFFF}", message)
        elif not self._in and not (call.program == REMOTE and call.procedure in AUTHENTICATION):
            require(message.startswith(("authentication required", "unknown procedure")), message)
        elif call.program == ECHO[0] and not self._open:
            require(code == 1 or message.startswith("unknown procedure"), message)
        elif (call.program, call.procedure) == ECHO:
            require(reply.payload == call.payload and not error, "an echo says the same")
        elif call.program == REMOTE and call.procedure == 66:
            require(reply.payload[:4] == b"\0\0\0\1", "there is one way to log in")

    def _ended(self, call: Wire, frames: list[Wire]) -> None:
        require(frames, "closed for a call that was not answered")
        remote = call.program == REMOTE and not call.status
        if remote and call.procedure == CLOSE:
            self.closed("goodbye")
        elif remote and call.procedure == OPEN:
            self.closed("refused")
        else:
            raise Violation(f"closed for {call}")

    def finish(self) -> None:
        """
        Check that all calls have been answered by now.
        """
        for reply in self.frames():
            if not isAsync(reply):
                self._reply(reply, reply._replace(serial=~reply.serial))
        left = +self._owed
        if self.over:
            if self._login and not self._in and sum(left.values()) >= 0:
                self.outcomes["closed: login failed"] += 1
        else:
            waiting = [key for key in left if not (self._later and key[2] == OPEN)]
            require(not waiting, f"calls are not answered: {waiting}")


class ClientJudge(Judge):
    """
    For an attacker that is a server.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._made: dict[int, Wire] = {}
        self._answered = set(range(subject.serial))
        self._opened = False
        self._take(cutAll(bytes(subject.near.written))[0])

    def _take(self, frames: list[Wire]) -> None:
        for frame in frames:
            require(frame.kind == CALL and frame.status == 0, f"{frame} is no call")
            require(frame.serial not in self._made, f"{frame} has a serial that was used")
            self._made[frame.serial] = frame

    def judge(self, frame: Wire) -> None:
        """
        Judge a keepalive message, a reply or an event.
        """
        if isAsync(frame):
            self.keepAlive(frame)
        elif frame.kind == REPLY:
            self._reply(frame)
        elif frame.kind != MESSAGE or (
            (frame.program, frame.procedure) == (REMOTE, 362) and len(frame.payload) < 4
        ):
            self._fails("not for a client")
        else:
            self.nothing()

    def _fails(self, why: str) -> None:
        require(not self.written(), "nothing should be said to that")
        self.closed(why, RemoteProtocolError)

    def _reply(self, reply: Wire) -> None:
        call = self._made.get(reply.serial)
        if (
            call is None
            or reply.serial in self._answered
            or (call.program, call.procedure) != (reply.program, reply.procedure)
            or reply.status not in (0, 1)
            or (reply.status == 1 and errorIn(reply.payload) is None)
        ):
            self._fails("no reply to a call")
            return
        self._answered.add(reply.serial)
        self._take(self.frames())
        if reply.procedure == OPEN and reply.status:
            require(self.over, "a client that may not open closes")
        if self.over:
            reason = self.subject.near.protocol._kaproto.closing.reason
            self.closed(type(reason).__name__)
        else:
            self.outcomes["taken"] += 1
            self._opened = reply.procedure == OPEN

    def successor(self) -> Judge:
        """
        @return: a judge of relayed messages, once the gateway's libvirtd has opened.
        """
        if not self._opened or self.subject.far is None:
            return self
        judge = RelayJudge(self.subject, towardsServer=False, queueing=False)
        judge.outcomes = self.outcomes
        judge._pings = self._pings
        return judge


class RelayJudge(Judge):
    """
    For an attacker on one side of a gateway that relays.
    """

    def __init__(self, subject: Subject, *, towardsServer: bool, queueing: bool) -> None:
        """
        @param towardsServer: whether the attacker is the client.
        @param queueing: whether the other side is in the middle of a frame, so that the gateway's
            own must wait.
        """
        super().__init__(subject)
        self._towardsServer = towardsServer
        self._queueing = queueing
        self.queue: list[bytes] = []
        self._owed = set(subject.owed)
        self._said: list[bytes] = []

    def _isOwn(self, frame: Wire) -> bool:
        """
        @return: whether the gateway answers a call itself.
        """
        which = (frame.program, frame.procedure)
        if frame.program == REMOTE and frame.procedure in AUTHENTICATION:
            return True
        if which in RETURNS_FDS or which == (REMOTE, SET_IDENTITY):
            return True
        if which == (REMOTE, FEATURE):
            payload = frame.payload[4:] if frame.kind == CALL_WITH_FDS else frame.payload
            return payload[:4] == struct.pack(">i", 10)
        return False

    def _isKept(self, frame: Wire) -> bool:
        """
        @return: whether the gateway must read a frame completely.
        """
        if frame.program == KEEPALIVE:
            return True
        if not self._towardsServer:
            return frame.kind == REPLY_WITH_FDS
        return frame.kind == CALL_WITH_FDS or (
            frame.kind == CALL
            and (self._isOwn(frame) or (frame.program, frame.procedure) in _ALSO_KEPT)
        )

    def judge(self, frame: Wire) -> None:
        """
        Judge a message that the gateway relays, answers or rejects.
        """
        kept = self._isKept(frame)
        if kept and len(frame.raw) > 65536:
            self._fails("too long to be kept")
        elif isAsync(frame):
            self.keepAlive(frame)
            if self.over:
                self._settleOwed()
            require(not self.written(far=True), "keepalive is not relayed")
        elif self._towardsServer:
            self._fromClient(frame, kept=kept)
        else:
            self._fromServer(frame)

    def _fromClient(self, frame: Wire, *, kept: bool) -> None:
        call = frame.kind in (CALL, CALL_WITH_FDS)
        if frame.kind == CALL_WITH_FDS and frame.program == KEEPALIVE:
            if frame.payload[:4] != bytes(4):
                self._fails("descriptors")
            else:
                require(not self.written(far=True), "that is not relayed")
                self._answered(frame)
        elif frame.kind == CALL_WITH_FDS and self._hasFds(frame):
            if self.dropping:
                require(not self.written(far=True), "it is not relayed")
                self._answered(frame)
        elif kept and not call:
            self.nothing()
            require(not self.written(far=True), "it is not relayed")
        elif frame.program == KEEPALIVE or (kept and self._isOwn(frame)):
            require(not self.written(far=True), "that is not relayed")
            self._answered(frame)
        else:
            self._relayed(frame)

    def _hasFds(self, frame: Wire) -> bool:
        """
        Find out whether a frame has file descriptors, and how many bytes after it are dropped.

        @return: whether it is not relayed: because it has some, or because the connection was
            closed for it.
        """
        if len(frame.payload) < 4:
            self._fails("descriptors")
            return True
        count: int = struct.unpack_from(">I", frame.payload)[0]
        if count > FDS_MAX:
            self._fails("descriptors")
            return True
        self.dropping = count
        return count > 0

    def _answered(self, call: Wire) -> None:
        frames = self._own()
        require(len(frames) == 1, f"a call has {len(frames)} answers")
        (reply,) = frames
        require(reply.key == call.key and reply.kind == REPLY, f"{reply} answers another call")
        if reply.status:
            require(errorIn(reply.payload) is not None, f"{reply} has no error in it")
        self.stays("error" if reply.status else "reply")

    def _own(self) -> list[Wire]:
        """
        @return: the gateway's own frames to the attacker, written or waiting.
        """
        if not self._queueing:
            return self.frames()
        require(not self.written(), "something was written in the middle of a frame")
        sieve = self.subject.near.protocol._kaproto.outgoing.filter
        waiting = list((sieve and sieve._injected) or ())
        new = [each for data in waiting[len(self.queue) :] for each in cutAll(data)[0]]
        self.queue = waiting
        return new

    def pong(self) -> None:
        """
        Check that a ping got one pong, written or waiting.
        """
        if self._queueing:
            self._own()
            require(PONG in self.queue, "a ping is answered with a pong")
        else:
            require(self.written() == PONG, "a ping is answered with a pong")
        self.stays("pong")

    def _fromServer(self, frame: Wire) -> None:
        if frame.program == KEEPALIVE:
            self._fails("no keepalive message")
            return
        if frame.kind in (REPLY, REPLY_WITH_FDS):
            self._owed.discard(frame.serial)
        if frame.kind != REPLY_WITH_FDS or not self._hasFds(frame):
            self._relayed(frame)
        elif self.dropping:
            (answer,) = cutAll(self.written(far=True))[0]
            require((answer.kind, answer.serial) == (REPLY, frame.serial), "it answers another")
            require(errorIn(answer.payload) is not None, f"{answer} has no error in it")
            self.stays("refused")

    def _relayed(self, frame: Wire) -> None:
        require(self.written(far=True) == frame.raw, "a frame is relayed as it is")
        require(not self.written(), "nothing is said to what is relayed")
        self.stays("relayed")

    def _fails(self, why: str) -> None:
        require(not self.written(), "nothing should be said to that")
        self.closed(why, RemoteProtocolError)
        self._settleOwed()

    def _settleOwed(self) -> None:
        """
        Check that the other side was closed, and got an error for every call in progress.
        """
        far = self.subject.far
        assert far is not None
        require(far.ending, "the other side should be closed")
        if self._towardsServer:
            return
        answers, rest = cutAll(self.written(far=True))
        require(not rest, "half a frame was written")
        for answer in answers:
            require(answer.kind == REPLY and answer.status == 1, f"{answer} is no error")
            require(answer.serial in self._owed, f"{answer} answers no call")
            self._owed.remove(answer.serial)
        require(not self._owed, f"the calls {self._owed} are not answered")

    def fragment(self, data: bytes) -> None:
        """
        Judge the outcome of a frame's beginning: the gateway waits for the rest, relays it, or
        closes.
        """
        if len(data) < 28:
            require(not self.written() and not self.written(far=True), "less than a header")
            self.stays("unfinished")
            return
        length, *words = struct.unpack_from(">IIIiIIi", data)
        frame = Wire._make((*words, data[28:], data))
        kept = self._isKept(frame) or (
            self._towardsServer
            and frame.kind == CALL
            and (frame.program, frame.procedure) == (REMOTE, FEATURE)
        )
        self.limit = 65536 if kept else LONGEST
        out = self.written(far=True)
        if not 28 <= length <= self.limit:
            require(not self.written(), "nothing should be said to that")
            self.closed("protocolErrors", RemoteProtocolError)
            self._seenAgain(out)
            self._settleOwed()
            return
        whole = kept or length <= WHOLE_MAX
        require(out == (b"" if whole else data), "what has come of a long frame is relayed at once")
        require(not self.written(), "nothing is said to half a frame")
        self.stays("unfinished")

    def _seenAgain(self, out: bytes) -> None:
        far = self.subject.far
        assert far is not None
        self._seen[id(far)] -= len(out)


_ALSO_KEPT: Final = {(REMOTE, FEATURE), (REMOTE, CLOSE), (REMOTE, 360), (REMOTE, 361)}


def judgeFor(target: str, state: str, subject: Subject) -> Judge:
    """
    @return: the judge of an attack.
    """
    if subject.relaying:
        return RelayJudge(
            subject, towardsServer=target == "gateway, by a client", queueing=state == "mid"
        )
    if target in ("client", "gateway, by libvirtd"):
        return ClientJudge(subject)
    return ServerJudge(subject, login=target == "auth", later=target == "gateway, by a client")
