"""
The destinations of the workers' logs.  Workers log where the parent does, but if Twisted rotates
log files, each process has its own file.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import IO, Any, cast

import attrs
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from twisted.python import syslog
from twisted.python.logfile import LogFile
from twisted.python.usage import Options as BaseOptions
from zope.interface import provider

from kaproto.app.logs import makeObserver

__all__ = ["LogTarget", "numbered"]


@attrs.frozen
class LogTarget:
    """
    The destination of a worker's log.

    @ivar form: one of L{kaproto.app.logs.FORMATS}.
    @ivar path: the path of the worker's own file; C{None} for standard output.
    @ivar syslog: the prefix of lines in syslog, if the log goes there.
    """

    form: str
    path: str | None = None
    syslog: str | None = None

    @classmethod
    def of(cls, program: BaseOptions | None, form: str | None, worker: int) -> LogTarget:
        """
        @param program: the options of C{twistd} or C{twist}.
        @param form: one of L{kaproto.app.logs.FORMATS}; C{None} for twist's own format, or text.
        @param worker: the worker's number.
        """
        given: Any = {} if program is None else program
        form = form or given.get("logFormat") or "text"
        if given.get("syslog"):
            return cls(form, syslog=f"{given['prefix']}-worker{worker}")
        name = given.get("logfile") or ("-" if given.get("nodaemon", True) else "twistd.log")
        if "fileLogObserverFactory" in given or name == "-":
            return cls(form)
        path = Path(name).absolute()
        return cls(form, str(path.with_name(f"{path.stem}-worker{worker}{path.suffix}")))

    @staticmethod
    def output(program: BaseOptions | None) -> int:
        """
        @return: the file descriptor that becomes the workers' standard output.
        """
        given: Any = {} if program is None else program
        # The file of twist's --log-file.
        return cast(int, given["logFile"].fileno()) if "logFile" in given else 1

    def begin(self, worker: int, reactor: IReactorFromThreads) -> None:
        """
        Start logging.

        @param worker: the number of this worker, which is added to each line.
        @param reactor: on SIGUSR1, rotates the worker's own file in its thread.
        """
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        if self.syslog is not None:
            syslog.startLogging(self.syslog)
            return
        if self.path is None:
            out = cast(IO[Any], sys.stdout)
        else:
            file = LogFile.fromFullPath(self.path)
            signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.rotate))
            out = cast(IO[Any], file)
        observer = makeObserver(self.form, out, os.environ)
        globalLogBeginner.beginLoggingTo([numbered(observer, worker)], redirectStandardIO=False)


def numbered(observer: ILogObserver, worker: int) -> ILogObserver:
    """
    @return: an observer that adds the worker's number to each event and passes it on.
    """

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        level = event.get("log_level")
        name = event.get("log_namespace", "-")
        event["worker"] = worker
        event["log_system"] = f"worker {worker} {name}#{level.name if level else 'info'}"
        observer(event)

    return cast(ILogObserver, observe)
