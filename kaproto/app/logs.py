"""
Formats log lines: as text or as JSON, and with priorities for systemd's journal.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import IO, Any, Final, cast

from twisted.logger import FileLogObserver, LogEvent, LogLevel, eventAsText, formatEvent
from twisted.python.logfile import LogFile
from twisted.python.usage import Options as BaseOptions

from kaproto.peer import Peer

__all__ = [
    "FORMATS",
    "eventAsJSON",
    "eventAsLine",
    "installLog",
    "isJournal",
    "makeObserver",
]

FORMATS: Final = ("text", "json")
"""
The formats that C{--log-format} names.
"""

_PRIORITIES: Final[Mapping[LogLevel, int]] = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}
"""
The priorities of syslog(3), by level.
"""


def makeObserver(form: str, out: IO[Any], environment: Mapping[str, str]) -> FileLogObserver:
    """
    @param form: one of L{FORMATS}.
    @param out: the file that lines are written to.
    @param environment: this process's environment, which tells whether systemd's journal reads
        C{out}.
    @return: the observer that writes the lines.
    """
    lines = {"json": eventAsJSON, "text": eventAsLine}
    if isJournal(out, environment):
        # The journal records the time and the priority of each line itself.
        lines["text"] = _message
        return FileLogObserver(out, _prioritized(lines[form]))
    return FileLogObserver(out, lines[form])


def installLog(
    program: BaseOptions | None, form: str | None, handle: Callable[[str, Callable[[], None]], None]
) -> FileLogObserver | None:
    """
    Make the program that runs the service write its log with L{makeObserver}.

    @param program: the options of C{twistd} or C{twist}.
    @param form: one of L{FORMATS}; C{None} for the format that C{twist} has chosen, or text.
    @param handle: installs a handler of a signal, by name.
    @return: the observer, for the application to provide; C{None} if the program has it already,
        or logs to syslog or with its own C{--logger}.
    """
    if program is None or program.get("logger") or program.get("syslog"):
        return None
    form = form or program.get("logFormat") or "text"
    if "fileLogObserverFactory" in program:
        program["fileLogObserverFactory"] = partial(
            makeObserver, form, environment=os.environ.copy()
        )
        return None
    name = program.get("logfile") or ("-" if program.get("nodaemon") else "twistd.log")
    if name == "-":
        return makeObserver(form, sys.stdout, os.environ)
    file = LogFile.fromFullPath(name)
    handle("SIGUSR1", file.rotate)
    return makeObserver(form, cast(IO[Any], file), os.environ)


def isJournal(out: IO[Any], environment: Mapping[str, str]) -> bool:
    """
    @return: whether systemd's journal reads this file, according to C{JOURNAL_STREAM}.
    """
    try:
        status = os.fstat(out.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _message(event: LogEvent) -> str:
    if "log_failure" in event:
        return eventAsText(event, includeTimestamp=False, includeSystem=False)
    if event.get("log_format") == "{text}" and "text" in event:
        # Skip the formatter for the audit log's events: it takes three times as long.
        return str(event["text"])
    return formatEvent(event)


def eventAsLine(event: LogEvent) -> str:
    """
    @return: a line in Twisted's format, made in half of Twisted's time.
    """
    text = _message(event)
    if not text:
        return ""
    text = text.replace("\n", "\n\t")
    system = event.get("log_system") or f"{event.get('log_namespace', '-')}#{_level(event)}"
    return f"{_second(int(event.get('log_time') or time.time()))} [{system}] {text}\n"


# Most events happen in the same second as the previous one, so the last result is kept.
@lru_cache(1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    return "info" if level is None else level.name


def eventAsJSON(event: LogEvent) -> str:
    """
    @return: a JSON object in one line: C{time} (RFC 3339), C{level}, C{logger}, C{message}, the
        event's own fields, and C{traceback} if it has a failure.
    """
    message = formatEvent(event)
    traceback = eventAsText(event)[len(message) :] if "log_failure" in event else None
    if not message and traceback is None:
        return ""
    now = event.get("log_time") or time.time()
    entry = {
        "time": f"{_utc(int(now))}.{int(now % 1 * 1_000_000):06}Z",
        "level": _level(event),
        "logger": event.get("log_namespace", "-"),
        "message": message,
    }
    for name, value in event.items():
        if not name.startswith("log_") and name not in _LEGACY:
            entry.setdefault(name, _plain(value))
    if traceback is not None:
        entry["traceback"] = event["log_failure"].getTraceback()
    return json.dumps(entry) + "\n"


_LEGACY: Final = frozenset({"message", "time", "system", "isError", "format", "failure"})
"""
The keys that Twisted adds for legacy log observers.
"""


@lru_cache(1)
def _utc(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _plain(value: object) -> object:
    """
    @return: the value, in a type that JSON supports.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Peer):
        credentials = value.unixCredentials
        found = {
            "transport": value.transport,
            "host": value.host,
            "port": getattr(value.address, "port", None),
            "uid": None if credentials is None else credentials.uid,
            "pid": None if credentials is None else credentials.pid,
            "program": value.program,
            "user": value.user,
            "dn": value.tlsDN,
        }
        return {name: each for name, each in found.items() if each is not None}
    return str(value)


def _prioritized(line: Callable[[LogEvent], str]) -> Callable[[LogEvent], str]:
    def prioritized(event: LogEvent) -> str:
        text = line(event).rstrip("\n")
        if not text:
            return ""
        prefix = f"<{_PRIORITIES[event.get('log_level') or LogLevel.info]}>"
        return "".join(f"{prefix}{each}\n" for each in text.split("\n"))

    return prioritized
