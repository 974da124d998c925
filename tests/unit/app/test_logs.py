"""
Tests for L{kaproto.app.logs}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import IO, Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.logger import (
    FileLogObserver,
    Logger,
    LogLevel,
    eventAsText,
    formatEventAsClassicLogText,
)
from twisted.python.failure import Failure
from twisted.python.usage import Options as BaseOptions
from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.logs import eventAsJSON, eventAsLine, installLog, isJournal, makeObserver
from kaproto.peer import Peer, UnixCredentials

Event = dict[str, Any]


def events() -> list[Event]:
    """
    @return: events of several kinds, one each.
    """
    caught: list[Event] = []
    journal = Logger("some.where", observer=caught.append)  # type: ignore[arg-type]
    journal.info("a {number} {text!r}", number=7, text="b")
    journal.warn("two\nlines")
    journal.failure("it failed", Failure(ValueError("a bug")))
    journal.debug(None)
    caught.append({"log_format": "legacy", "log_system": "old", "log_time": 1e9, "isError": 0})
    return caught


class LineTests(SynchronousTestCase):
    """
    Tests for log lines in text.
    """

    def test_sameAsTwisted(self) -> None:
        """
        Lines are the same as Twisted's.
        """
        for event in events():
            self.assertEqual(eventAsLine(event), formatEventAsClassicLogText(event) or "")

    def test_audit(self) -> None:
        """
        Text that is already formatted, as in the audit log, is not formatted again.
        """
        event = {"log_format": "{text}", "text": "{it} came", "log_time": 0}
        self.assertTrue(eventAsLine(event).endswith(" [-#info] {it} came\n"))

    def test_bare(self) -> None:
        """
        An event without a time gets the current one.
        """
        self.assertRegex(eventAsLine({"log_format": "x"}), r"^20\d\d-\S+ \[-#info\] x\n$")


class JSONTests(SynchronousTestCase):
    """
    Tests for log lines in JSON.
    """

    def parsed(self, event: Event) -> Event:
        """
        @return: the JSON object of the event's line.
        """
        text = eventAsJSON(event)
        self.assertEqual(text.count("\n"), 1)
        self.assertTrue(text.isascii())
        parsed: Event = json.loads(text)
        return parsed

    def test_fields(self) -> None:
        """
        An event is one object on one line, with time, level, logger, message and the event's
        fields.
        """
        plain, lines, failed, empty, legacy = events()
        plain["log_time"] = 1_000_000_000.25
        self.assertEqual(
            self.parsed(plain),
            {
                "time": "2001-09-09T01:46:40.250000Z",
                "level": "info",
                "logger": "some.where",
                "message": "a 7 'b'",
                "number": 7,
                "text": "b",
            },
        )
        self.assertEqual(self.parsed(lines)["message"], "two\nlines")
        self.assertEqual(eventAsJSON(empty), "")
        self.assertEqual(self.parsed(legacy)["message"], "legacy")
        self.assertEqual(set(self.parsed(legacy)), {"time", "level", "logger", "message"})
        self.assertIn("ValueError: a bug", self.parsed(failed)["traceback"])
        self.assertEqual(self.parsed(failed)["message"], "it failed")
        self.assertEqual(self.parsed(failed)["level"], "critical")

    def test_peer(self) -> None:
        """
        A client becomes an object with what is known of it; values that JSON does not have become
        text.
        """
        tcp = Peer(IPv4Address("TCP", "192.0.2.1", 5), "tls", tlsDN="CN=a", user="alice")
        local = Peer(
            UNIXAddress(None), "unix", unixCredentials=UnixCredentials(3, 4, 5), program="virsh"
        )
        parsed = self.parsed(
            {"log_format": "x", "peer": tcp, "other": local, "error": ValueError("no")}
        )
        self.assertEqual(
            parsed["peer"],
            {"transport": "tls", "host": "192.0.2.1", "port": 5, "user": "alice", "dn": "CN=a"},
        )
        self.assertEqual(
            parsed["other"], {"transport": "unix", "uid": 4, "pid": 3, "program": "virsh"}
        )
        self.assertEqual(parsed["error"], "no")

    def test_hostile(self) -> None:
        """
        Hostile text can neither end the line or the object early, nor replace the event's fields.
        """
        text = '"}\n{"level": "x\u2028\x1b[31m\ud800'
        parsed = self.parsed({"log_format": "{text}", "text": text, "level": "forged"})
        self.assertEqual(parsed["message"], text)
        self.assertEqual(parsed["level"], "info")


class JournalTests(SynchronousTestCase):
    """
    Tests for logs that systemd's journal reads.
    """

    def environment(self, out: IO[Any]) -> dict[str, str]:
        """
        @return: an environment that names C{out} as the journal's stream.
        """
        status = os.fstat(out.fileno())
        return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    def test_isJournal(self) -> None:
        """
        Only the stream that C{JOURNAL_STREAM} names is taken for the journal's.
        """
        path = Path(self.mktemp())
        with path.open("w") as out, Path(os.devnull).open("w") as other:
            environment = self.environment(out)
            self.assertTrue(isJournal(out, environment))
            self.assertFalse(isJournal(other, environment))
            self.assertFalse(isJournal(out, {}))
        self.assertFalse(isJournal(out, environment))
        self.assertFalse(isJournal(StringIO(), environment))

    def test_priorities(self) -> None:
        """
        Each line begins with its priority.  Text lines have no time, since the journal adds it.
        """
        for form in ("text", "json"):
            path = Path(self.mktemp())
            with path.open("w") as out:
                observer = makeObserver(form, out, self.environment(out))
                for event in events():
                    observer(event)
            lines = path.read_text().splitlines()
            if form == "text":
                self.assertEqual(lines[:4], ["<6>a 7 'b'", "<4>two", "<4>lines", "<2>it failed"])
                self.assertTrue(all(line.startswith("<2>") for line in lines[3:-1]))
                self.assertEqual(lines[-1], "<6>legacy")
            else:
                self.assertEqual([line[:4] for line in lines], ["<6>{", "<4>{", "<2>{", "<6>{"])

    def test_levels(self) -> None:
        """
        Every log level has a priority.
        """
        with Path(self.mktemp()).open("w+") as out:
            observer = makeObserver("text", out, self.environment(out))
            for level in LogLevel.iterconstants():
                observer({"log_format": "x", "log_level": level})
            out.seek(0)
            self.assertEqual(sorted(out.read().split()), ["<2>x", "<3>x", "<4>x", "<6>x", "<7>x"])


class InstallTests(SynchronousTestCase):
    """
    Tests for installing the log observer in C{twistd} and C{twist}.
    """

    def setUp(self) -> None:
        """
        Replace the standard output.
        """
        self.out = TextIOWrapper(BytesIO())
        self.patch(sys, "stdout", self.out)
        self.handled: dict[str, Callable[[], None]] = {}

    def install(self, form: str | None, **options: object) -> FileLogObserver | None:
        """
        Install the log in a program with these options.
        """
        program = BaseOptions()
        program.update(options)
        self.program = program
        return installLog(program, form, self.handled.__setitem__)

    def written(self, observer: FileLogObserver | None) -> str:
        """
        @return: what the observer writes to standard output.
        """
        assert observer is not None
        observer({"log_format": "x", "log_time": 1})
        self.out.seek(0)
        return self.out.read()

    def test_twistd(self) -> None:
        """
        In the foreground, C{twistd} logs to standard output, unless it has a log file.
        """
        self.assertIn("[-#info] x\n", self.written(self.install(None, nodaemon=True)))
        self.assertIn('{"time": ', self.written(self.install("json", nodaemon=True, logfile="-")))

    def test_file(self) -> None:
        """
        C{twistd} logs to its log file, by default twistd.log, which is rotated on SIGUSR1.
        """
        path = Path(self.mktemp())
        for options, name in (({"logfile": str(path)}, path), ({}, Path("twistd.log"))):
            observer = self.install("json", **options)
            assert observer is not None
            observer({"log_format": "x"})
            self.assertIn('"message": "x"', name.read_text())
            self.handled["SIGUSR1"]()
            self.assertIn('"message": "x"', Path(f"{name}.1").read_text())

    def test_twist(self) -> None:
        """
        C{twist} keeps its own log format, unless another one is given, and its own log file.
        """
        for form, own, begin in (
            (None, "json", "{"),
            ("text", "json", "1970"),
            (None, "text", "1970"),
        ):
            options = {"fileLogObserverFactory": None, "logFormat": own}
            self.assertIsNone(self.install(form, **options))
            out = StringIO()
            self.program["fileLogObserverFactory"](out)({"log_format": "x", "log_time": 1})
            self.assertTrue(out.getvalue().startswith(begin), out.getvalue())

    def test_others(self) -> None:
        """
        A logger that the user has chosen, or syslog, is not replaced.
        """
        self.assertIsNone(self.install("json", logger=eventAsText))
        self.assertIsNone(self.install("json", syslog=True))
        self.assertIsNone(installLog(None, "json", self.handled.__setitem__))
