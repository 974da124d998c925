"""
Tests for L{kaproto.workers.logs}.
"""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Mapping
from typing import Any, cast

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import ILogObserver, Logger, globalLogBeginner
from twisted.python import syslog
from twisted.python.usage import Options
from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.logs import makeObserver
from kaproto.workers.logs import LogTarget, numbered


def program(**values: object) -> Options:
    """
    @return: the options of the program that runs the service.
    """
    options = Options()
    options.update(values)
    return options


class TargetTests(SynchronousTestCase):
    """
    Tests for the log target of workers.
    """

    def test_of(self) -> None:
        """
        A worker logs to standard output, to C{twist}'s output, to syslog, or into its own file.
        """
        folder = os.getcwd()
        cases: list[tuple[Mapping[str, object] | None, str | None, LogTarget]] = [
            (None, None, LogTarget("text")),
            ({"nodaemon": True}, "json", LogTarget("json")),
            ({"logfile": "-"}, None, LogTarget("text")),
            ({"nodaemon": False}, None, LogTarget("text", f"{folder}/twistd-worker2.log")),
            ({"logfile": "/x/ka.log"}, None, LogTarget("text", "/x/ka-worker2.log")),
            ({"syslog": True, "prefix": "ka"}, None, LogTarget("text", syslog="ka-worker2")),
            (
                {"fileLogObserverFactory": None, "logFormat": "json", "nodaemon": False},
                None,
                LogTarget("json"),
            ),
        ]
        for given, form, expected in cases:
            options = None if given is None else program(**given)
            self.assertEqual(LogTarget.of(options, form, 2), expected, given)

    def test_output(self) -> None:
        """
        Standard output is this process's own, unless C{twist} writes into a file.
        """
        self.assertEqual((LogTarget.output(None), LogTarget.output(program())), (1, 1))
        with open(self.mktemp(), "w") as file:
            self.assertEqual(LogTarget.output(program(logFile=file)), file.fileno())

    def test_begin(self) -> None:
        """
        Each line has the number of its worker, and a log file is rotated on SIGUSR1.
        """
        begun: list[list[ILogObserver]] = []
        handlers: dict[int, Any] = {}
        self.patch(globalLogBeginner, "beginLoggingTo", lambda to, **_: begun.append(to))
        self.patch(signal, "signal", handlers.__setitem__)
        self.patch(syslog, "startLogging", begun.append)
        reactor = cast(IReactorFromThreads, self)
        LogTarget("text").begin(2, reactor)
        self.assertEqual(handlers, {signal.SIGUSR1: signal.SIG_IGN})
        path = self.mktemp()
        LogTarget("text", path).begin(2, reactor)
        handlers[signal.SIGUSR1](signal.SIGUSR1, None)
        self.assertTrue(os.path.exists(f"{path}.1"))
        LogTarget("text", syslog="ka").begin(2, reactor)
        self.assertEqual(begun[2], "ka")
        (observer,) = begun[1]
        Logger("a.b", observer=observer).warn("hello")
        with open(path) as file:
            self.assertIn("[worker 2 a.b#warn] hello", file.read())

    def callFromThread(self, work: Any) -> None:
        """
        Call the function.
        """
        work()

    def test_json(self) -> None:
        """
        In JSON the worker's number is a field.
        """
        out = io.StringIO()
        observer = numbered(makeObserver("json", out, {}), 2)
        Logger("a.b", observer=observer).info("hello")
        observer({"log_format": "plain"})
        first, second = map(json.loads, out.getvalue().splitlines())
        self.assertEqual((first["message"], first["worker"]), ("hello", 2))
        self.assertEqual(second["worker"], 2)
