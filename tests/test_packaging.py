"""
Tests for the wheel and for the commands in the README.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

from twisted.trial.unittest import SynchronousTestCase

from kaproto import __version__

PROJECT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, directory: str | Path = PROJECT) -> str:
    """
    Run a command to its end.

    @return: its output.
    @raise AssertionError: when it fails.
    """
    result = subprocess.run(
        command,
        cwd=directory,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    if result.returncode:
        raise AssertionError(f"{command} ended with {result.returncode}:\n{result.stdout}")
    return result.stdout


class Installed(NamedTuple):
    """
    The wheel, and a virtual environment where it is installed.

    @ivar wheel: the wheel's file.
    @ivar python: the environment's interpreter.
    @ivar packages: the folder that the wheel was unpacked to.
    @ivar elsewhere: a folder outside of the checkout.
    """

    wheel: Path
    python: Path
    packages: Path
    elsewhere: Path


@cache
def install() -> Installed:
    """
    Build and install the wheel, once for all tests.  Its dependencies are imported from the
    environment that runs the tests.
    """
    folder = Path(tempfile.mkdtemp(prefix="wheel-", dir=Path.cwd()))
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "venv"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    flags = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", f"--python={python}", "install", *flags, wheel)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return Installed(wheel, python, packages, elsewhere)


class WheelTests(SynchronousTestCase):
    """
    Tests for the wheel and for twistd in the wheel's environment.
    """

    def setUp(self) -> None:
        """
        Build and install the wheel, unless another test did.
        """
        self.installed = install()

    def runPython(self, *arguments: str) -> str:
        """
        Run the new environment's Python outside of the checkout.

        @return: its output.
        """
        return run(self.installed.python, "-I", *arguments, directory=self.installed.elsewhere)

    def twistd(self, *arguments: str) -> str:
        """
        Run the new environment's twistd.

        @return: its output.
        """
        start = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
        return self.runPython("-c", start, *arguments)

    def test_contents(self) -> None:
        """
        The wheel has the plugins, C{py.typed} and the shared files, but no plugin cache, tests or
        documentation.
        """
        names = ZipFile(self.installed.wheel).namelist()
        self.assertIn("kaproto/py.typed", names)
        plugins = [name for name in names if name.startswith("twisted/")]
        modules = (
            "kaproto_auth.py",
            "kaproto_codecs.py",
            "kaproto_endpoints.py",
            "kaproto_plugins.py",
        )
        self.assertEqual(plugins, [f"twisted/plugins/{name}" for name in modules])
        top = {name.partition("/")[0] for name in names}
        folder = f"kaproto-{__version__}"
        self.assertEqual(top, {"kaproto", "twisted", f"{folder}.dist-info", f"{folder}.data"})
        shared = f"{folder}.data/data/share"
        for name in (
            "man/man1/kaproto.1",
            "man/man8/kaserver.8",
            "kaproto/systemd/kaserver.service",
            "kaproto/systemd/kaserver@.service",
            "kaproto/haproxy/haproxy.cfg",
        ):
            self.assertIn(f"{shared}/{name}", names)

    def test_metadata(self) -> None:
        """
        The description has no link or picture that works only in the repository.
        """
        archive = ZipFile(self.installed.wheel)
        text = archive.read(f"kaproto-{__version__}.dist-info/METADATA").decode()
        self.assertIn("Description-Content-Type: text/markdown", text)
        self.assertIn("# kaproto\n", text)
        self.assertNotRegex(text, r"\]\((?!https?://)")

    def test_everyModule(self) -> None:
        """
        Every module of the checkout is in the wheel.
        """
        modules = {str(path.relative_to(PROJECT)) for path in PROJECT.glob("kaproto/**/*.py")}
        self.assertEqual(modules - set(ZipFile(self.installed.wheel).namelist()), set())

    def test_importedFromWheel(self) -> None:
        """
        The new environment runs the wheel's code, not the checkout's.
        """
        output = self.runPython("-c", "import kaproto; print(kaproto.__file__)")
        self.assertEqual(output.strip(), str(self.installed.packages / "kaproto" / "__init__.py"))

    def test_help(self) -> None:
        """
        C{twistd --help} lists kaserver.
        """
        self.assertRegex(self.twistd("--help"), r"(?m)^ +kaserver +\S")

    def test_version(self) -> None:
        """
        C{twistd kaserver --version} prints the version of the package.
        """
        self.assertIn(__version__, self.twistd("kaserver", "--version"))

    def test_policies(self) -> None:
        """
        The three modes are available in the new environment.
        """
        self.assertRegex(
            self.twistd("kaserver", "--help-policies"), r"(?s)disable .*optional .*mandatory "
        )


class TypesTests(SynchronousTestCase):
    """
    Tests that a project outside of the checkout passes mypy in strict mode against the wheel.  The
    project is the examples.
    """

    if find_spec("mypy_zope") is None:
        skip = "mypy and mypy-zope are not installed"

    def check(self, settings: str, *modules: str, without: tuple[str, ...] = ()) -> None:
        """
        Run mypy on modules of the examples.
        """
        installed = install()
        project = installed.elsewhere / settings
        shutil.copytree(PROJECT / "docs" / "examples", project)
        for folder in ("rollout", "keepalive"):
            for path in (project / folder).glob("*.py"):
                path.rename(project / path.name)
        found = {path.name for each in modules for path in project.glob(f"{each}.py")}
        self.assertGreater(len(found), 9)
        output = run(
            *(sys.executable, "-m", "mypy", f"--config-file=types/{settings}.toml"),
            *(f"--python-executable={installed.python}", *(found - set(without))),
            directory=project,
        )
        self.assertIn("no issues found", output)

    def test_plain(self) -> None:
        """
        Clients, servers, a policy, a program and watched protocols pass without a mypy plugin.
        """
        clients = ("client", "domains", "more_calls", "reconnecting", "watch_hosts", "login")
        watched = ("chat_watched", "records_watched", "sums_watched", "chat_heartbeat")
        self.check("plain", *clients, "feed", "feed_client", "feed_server", "rollout", *watched)

    def test_plugin(self) -> None:
        """
        With mypy-zope all examples pass, except those that use Twisted's global reactor, which has
        no type.
        """
        self.check("plugin", "*", without=("asyncio_client.py", "threads_client.py"))


def readmeCommands() -> list[str]:
    """
    @return: the README's one-line shell commands that begin by creating a virtual environment.
    """
    return re.findall(r"(?m)^python3 -m venv .*$", (PROJECT / "README.md").read_text())


class CommandTests(SynchronousTestCase):
    """
    Tests for the README's two commands, which continuous integration runs too.
    """

    def test_readme(self) -> None:
        """
        The first command runs kaserver in mode 2, the second runs all tests.
        """
        first, second = readmeCommands()
        self.assertRegex(first, r"pip install \. && \.venv/bin/twistd -n kaserver --mode=2$")
        self.assertRegex(second, r"pip install .*\[test\].* && .*-m twisted\.trial -j2 tests$")

    def test_continuousIntegration(self) -> None:
        """
        C{.ci/run} takes both commands from the README, and has no copy of them.
        """
        script = (PROJECT / ".ci" / "run").read_text()
        self.assertIn("README.md", script)
        self.assertNotIn("-m twisted.trial -j2", script)

    def test_version(self) -> None:
        """
        The version is defined only in the package, where the build reads it.  The latest news is
        about that version.
        """
        with (PROJECT / "pyproject.toml").open("rb") as file:
            settings = tomllib.load(file)
        self.assertNotIn("version", settings["project"])
        news = (PROJECT / "NEWS.rst").read_text("utf-8").partition("release notes start\n\n")[2]
        self.assertEqual(news.split()[0], __version__)
        self.assertEqual(settings["tool"]["hatch"]["version"]["path"], "kaproto/__init__.py")
