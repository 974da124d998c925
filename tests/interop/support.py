"""
What all interop tests need: checks for tools, waiting with a deadline, private folders.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from typing import Any, NoReturn, TypeVar, cast

from twisted.internet import reactor as _globalReactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorProcess,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
)
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from tests.machine import useMachine
from tests.support_sockets import SHORT

__all__ = [
    "CHROMIUM",
    "LIBVIRTD",
    "PYTHON",
    "REDIS_SERVER",
    "REQUIRE_VARIABLE",
    "VIRSH",
    "VIRT_ADMIN",
    "InteropTestCase",
    "missingTools",
    "pause",
    "privateEnvironment",
    "reactor",
    "requireInterop",
    "together",
    "unavailable",
    "waitUntil",
]

REQUIRE_VARIABLE = "KAPROTO_REQUIRE_INTEROP"
"""
The environment variable that turns a missing tool from a skip into a failure.
"""

_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/bin", "/sbin"])

VIRSH = shutil.which("virsh", path=_SEARCH) or "virsh"
REDIS_SERVER = shutil.which("redis-server", path=_SEARCH) or "redis-server"
CHROMIUM = shutil.which("chromium", path=_SEARCH) or "chromium"
VIRT_ADMIN = shutil.which("virt-admin", path=_SEARCH) or "virt-admin"
LIBVIRTD = shutil.which("libvirtd", path=_SEARCH) or "libvirtd"
PYTHON = "/usr/bin/python3"
"""
The system's own Python, which the distribution's libvirt bindings are installed for.
"""

_FREE_OF = ("LIBVIRT", "VIRSH", "PYTHON", "XDG_", "LC_", "LANG", "VIRTUAL_ENV", "DISPLAY", "DBUS_")

_T = TypeVar("_T")


class _Reactor(IReactorCore, IReactorProcess, IReactorTCP, IReactorTime, IReactorUNIX):
    """
    The reactor interfaces that these tests use.
    """


reactor = cast(_Reactor, _globalReactor)


@cache
def _works(*command: str) -> bool:
    """
    @return: whether C{command} can be run and exits with 0.
    """
    try:
        finished = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return finished.returncode == 0


_CHECKS = {
    "systemd-analyze": ("systemd-analyze", "--version"),
    "redis-server": (REDIS_SERVER, "--version"),
    "haproxy": ("haproxy", "-v"),
    "chromium": (CHROMIUM, "--version"),
    "virsh": (VIRSH, "--version"),
    "virt-admin": (VIRT_ADMIN, "--version"),
    "libvirtd": (LIBVIRTD, "--version"),
    "python3-libvirt": (PYTHON, "-c", "import libvirt"),
    "nsenter": ("nsenter", "--version"),
    "unshare": (
        "unshare",
        *["--user", "--map-root-user", "--net", "--mount", "ip", "link", "set", "lo", "up"],
    ),
}


def missingTools(tools: Sequence[str]) -> list[str]:
    """
    @param tools: names out of C{chromium}, C{haproxy}, C{virsh}, C{virt-admin}, C{libvirtd},
        C{python3-libvirt}, C{redis-server}, C{systemd-analyze}, C{nsenter} and C{unshare} (which
        here includes C{ip}).
    @return: those missing on this machine.
    """
    return [tool for tool in tools if not _works(*_CHECKS[tool])]


def requireInterop(*tools: str) -> None:
    """
    Skip the running test if a tool is missing.

    @param tools: as for L{missingTools}.
    @raise SkipTest: when one is missing.
    @raise AssertionError: instead, if L{REQUIRE_VARIABLE} is set to 1.
    """
    missing = missingTools(tools)
    if missing:
        unavailable(f"not installed or not working here: {', '.join(missing)}")


def unavailable(reason: str) -> NoReturn:
    """
    Skip the running test because something that it needs is missing.

    @raise SkipTest: with the reason.
    @raise AssertionError: instead, if L{REQUIRE_VARIABLE} is set to 1.
    """
    if os.environ.get(REQUIRE_VARIABLE) == "1":
        raise AssertionError(f"{reason}, and {REQUIRE_VARIABLE}=1 demands it")
    raise SkipTest(reason)


def privateEnvironment(directory: str) -> dict[str, str]:
    """
    @param directory: a folder used by this test only; it becomes the program's home.
    @return: an environment in which libvirt's programs do not read the user's settings, write
        nothing to the user's folders, and use untranslated English.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(_FREE_OF)
    }
    return kept | {
        "PATH": _SEARCH,
        "LC_ALL": "C",
        "HOME": directory,
        "XDG_CACHE_HOME": os.path.join(directory, "cache"),
        "XDG_CONFIG_HOME": os.path.join(directory, "config"),
        "XDG_DATA_HOME": os.path.join(directory, "data"),
        "XDG_RUNTIME_DIR": os.path.join(directory, "run"),
    }


async def together(*coroutines: Coroutine[Deferred[Any], Any, _T]) -> list[_T]:
    """
    Run several coroutines concurrently.

    @return: their results, when all have ended.
    @raise Exception: the first failure among them, after all have ended.
    """
    running = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    ended: list[tuple[bool, Any]] = await DeferredList(running, consumeErrors=True)
    for succeeded, result in ended:
        if not succeeded:
            result.raiseException()
    return [result for _succeeded, result in ended]


async def pause(seconds: float) -> None:
    """
    Wait for C{seconds}.  Only for checking that something does not happen; L{waitUntil} waits until
    something has happened.
    """
    await deferLater(reactor, seconds)


async def waitUntil(
    condition: Callable[[], _T | None], what: str | Callable[[], str], timeout: float = 20.0
) -> _T:
    """
    Wait until a condition is true.

    @param condition: called every few milliseconds until its result is true.
    @param what: what is waited for, for the failure message.
    @param timeout: seconds to wait at most.
    @return: the true result of C{condition}.
    @raise AssertionError: when it is not true within C{timeout} seconds.
    """
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            explanation = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {timeout:g} s: {explanation}")
        await deferLater(reactor, 0.005)
    return result


class InteropTestCase(TestCase):
    """
    A test with real programs.

    @cvar tools: the programs that it needs, as for L{missingTools}.
    @cvar alone: whether the test measures time, so that no other may run meanwhile.
    """

    timeout = 60
    tools: tuple[str, ...] = ("virsh",)
    alone = False

    def setUp(self) -> None:
        """
        Skip the test, or fail it, if a tool is missing.
        """
        requireInterop(*self.tools)
        useMachine(self, alone=self.alone)

    def privateDirectory(self) -> str:
        """
        @return: a new folder, deleted when the test ends.  Its path is short enough for UNIX
            sockets.
        """
        directory = tempfile.mkdtemp(prefix="kaproto-", dir=SHORT)
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        return directory
