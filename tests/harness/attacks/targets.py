"""
The servers to attack: a kaserver, with or without a libvirtd behind it, and a libvirtd.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from kaproto.security.scramkeys import ScramKeys
from tests.harness.attacks.honest import Login
from tests.harness.attacks.rawsocket import Address, connect
from tests.interop.servers import holdPort, twistdCommand
from tests.interop.support import LIBVIRTD, privateEnvironment

__all__ = ["KaTarget", "LibvirtTarget", "Target", "until"]

_USER = 65534
_TROUBLE = re.compile(r"Traceback|[Uu]nhandled|Could not (re-)?reserve")
_LISTENING = re.compile(r"listening on (?:(?:tcp|tls \(up to [\d.]+\)) \S+:(\d+)|unix (\S+)) \(")

_SETTINGS = """
listen_tls = 0
listen_tcp = 1
listen_addr = "127.0.0.1"
tcp_port = "{port}"
auth_tcp = "none"
auth_unix_rw = "{auth}"
auth_unix_ro = "none"
unix_sock_dir = "{directory}"
log_outputs = "3:stderr"
"""


def until(condition: Callable[[], object], what: str, timeout: float = 10.0) -> float:
    """
    Wait until a condition is true.

    @return: the seconds that took.
    @raise AssertionError: when it is not true in time.
    """
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(0.002)
    return time.monotonic() - begun


class Target:
    """
    A server with its own process and folder, which both end with the C{with} statement.

    @ivar name: its name in tables.
    @ivar address: the address for clients.
    @ivar anonymous: the address for clients that do not log in.
    @ivar login: the login of honest clients.
    """

    name = ""
    address: Address
    anonymous: Address
    login: Login | None = None

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="kaproto-")
        self._logPath = os.path.join(self.directory, "log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """
        Start it, and wait until it serves.
        """
        raise NotImplementedError

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        user: int | None = None,
        files: int | None = None,
    ) -> None:
        """
        Run the server's program.

        @param files: its limit of open files.
        """
        limit = None if files is None else partial(_limitFiles, files)
        with open(self._logPath, "ab") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                user=user,
                group=user,
                preexec_fn=limit,  # noqa: PLW1509 - nothing here has threads
            )

    @property
    def pid(self) -> int:
        """
        The id of the server's process.
        """
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """
        Whether the server runs.
        """
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """
        The server's log without the audit lines, of which every client has some.
        """
        with open(self._logPath, encoding="utf-8", errors="replace") as file:
            return "".join(line for line in file if "[kaproto.audit#" not in line)

    def kill(self) -> None:
        """
        Kill the process, even if it is stopped.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()

    def signal(self, number: int) -> None:
        """
        Send the server a signal.
        """
        assert self._process is not None
        self._process.send_signal(number)

    def check(self) -> None:
        """
        Check that the server runs, and has logged no unexpected error.

        @raise AssertionError: when it has ended, or has logged one.
        """
        log = self.log
        if not self.running:
            raise AssertionError(f"{self.name} has ended:\n{log[-4000:]}")
        trouble = _TROUBLE.search(log)
        if trouble is not None:
            raise AssertionError(f"{self.name}:\n{log[max(0, trouble.start() - 2000) :][:6000]}")

    def accepts(self) -> bool:
        """
        @return: whether connections are accepted.
        @raise AssertionError: when the server has ended.
        """
        if not self.running:
            raise AssertionError(f"{self.name} has ended:\n{self.log[-4000:]}")
        try:
            for address in {self.address, self.anonymous}:
                connect(address).close()
        except OSError:
            return False
        return True


def _limitFiles(files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


class KaTarget(Target):
    """
    A kaserver.
    """

    name = "kaserver"

    def __init__(
        self,
        *arguments: str,
        upstream: LibvirtTarget | None = None,
        unix: bool = False,
        files: int | None = None,
        login: Login | None = None,
        others: Sequence[Login] = (),
        iterations: int | None = None,
    ) -> None:
        """
        @param upstream: the libvirtd to be a gateway to.
        @param unix: whether to listen on a UNIX socket instead of TCP.
        @param files: its limit of open files.
        @param login: the login of honest clients.
        @param others: the logins of more users.
        @param iterations: the SCRAM iterations of the users' salted keys; C{None} for passwords in
            plain text.
        """
        super().__init__()
        self._arguments = [*arguments]
        if upstream is not None:
            self.name = "gateway"
            self._arguments += [f"--upstream=tcp:127.0.0.1:{upstream.address}", "--insecure"]
        self.login = login
        if login is not None:
            users = os.path.join(self.directory, "users")
            with open(users, "w", encoding="utf-8") as file:
                for name, password in (login, *others):
                    secret = password
                    if iterations is not None:
                        keys = ScramKeys.fromPassword(password, iterations=iterations)
                        secret = keys.toText()
                    file.write(f"{name}:{secret}\n")
            kind = "file" if iterations is None else "scram"
            self._arguments.append(f"--auth={kind}:{users}")
        self._files = files
        self.address = self.anonymous = 0
        if unix or login is not None:
            self.address = self.anonymous = os.path.join(self.directory, "socket")

    def start(self) -> None:
        """
        Start it.  When it is started again, it listens on the same address.
        """
        began = len(self.log) if os.path.exists(self._logPath) else 0
        command = [*twistdCommand(), "-n", "--pidfile=", "kaserver", f"--listen={self.listener}"]
        self.run(command + self._arguments, self.environment, files=self._files)

        def listens() -> bool:
            if not self.running:
                raise AssertionError(f"{self.name} did not start:\n{self.log[began:]}")
            return _LISTENING.search(self.log, began) is not None

        until(listens, "kaserver to listen", 20)
        match = _LISTENING.search(self.log, began)
        assert match is not None
        self.listens(match[2] or int(match[1]))

    @property
    def environment(self) -> Mapping[str, str]:
        """
        The environment of the server's process.
        """
        return os.environ

    @property
    def listener(self) -> str:
        """
        The endpoint to listen on.
        """
        if isinstance(self.address, str):
            return f"unix:{self.address}"
        return f"tcp:{self.address}:interface=127.0.0.1"

    def listens(self, place: str | int) -> None:
        """
        Record the path or port.
        """
        self.address = self.anonymous = place


class LibvirtTarget(Target):
    """
    A libvirtd with the test driver, which requires no authentication on TCP, and a password on its
    UNIX socket.

    @ivar socketPath: the path of its UNIX socket.
    """

    name = "libvirtd"

    def __init__(self, settings: str = "", *, files: int | None = None, auth: str = "sasl") -> None:
        """
        @param settings: more lines for its C{libvirtd.conf}.
        @param auth: C{auth_unix_rw}: the authentication on its UNIX socket.
        @param files: its limit of open files.
        """
        super().__init__()
        self._settings = settings
        self._files = files
        self._auth = auth
        self._port = holdPort()
        self.address = int(self._port.getsockname()[1])
        self.socketPath = self.anonymous = os.path.join(self.directory, "libvirt-sock")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._port.close()

    def start(self) -> None:
        """
        Start it.  When it is started again, it listens on the same port.
        """
        environment = privateEnvironment(self.directory)
        path = os.path.join(self.directory, "libvirtd.conf")
        with open(path, "w", encoding="ascii") as file:
            file.write(
                _SETTINGS.format(port=self.address, directory=self.directory, auth=self._auth)
            )
            file.write(self._settings)
        os.makedirs(environment["XDG_RUNTIME_DIR"], mode=0o700, exist_ok=True)
        user = _USER if os.geteuid() == 0 else None
        if user is not None:
            for each in (self.directory, environment["XDG_RUNTIME_DIR"]):
                os.chown(each, user, user)
        pidFile = os.path.join(self.directory, "libvirtd.pid")
        command = [LIBVIRTD, "--listen", "--config", path, "--pid-file", pidFile]
        self.run(command, environment, user, self._files)
        until(self.accepts, "libvirtd to listen", 20)
