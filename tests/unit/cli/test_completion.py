"""
Tests for L{kaproto.cli.completion}.
"""

from __future__ import annotations

import subprocess
from shutil import which

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kaproto.cli.completion import Completion
from kaproto.cli.main import Options


class CompletionTests(SynchronousTestCase):
    """
    Tests for completion scripts.
    """

    def script(self, shell: str) -> str:
        """
        @return: the script that the command prints.
        """
        options = Options()  # type: ignore[no-untyped-call]
        options.parseOptions(["completion", shell])
        command = options.subOptions
        assert isinstance(command, Completion)
        lines: list[str] = []
        command.write = lines.append
        self.assertEqual(
            self.successResultOf(Deferred.fromCoroutine(command.run(MemoryReactorClock()))), 0
        )
        return "\n".join(lines)

    def test_bash(self) -> None:
        """
        bash completes commands and options with the script.
        """
        bash = which("bash")
        assert bash is not None, "the tests' machine has bash"
        for words, expected in [
            ("kaproto pi", ["ping"]),
            ("kaproto ping --c", ["--check", "--count=", "--critical="]),
            ("kaproto demo --in", ["--interval="]),
        ]:
            array = words.split()
            program = (
                f"{self.script('bash')}\nCOMP_WORDS=({' '.join(array)}); "
                f"COMP_CWORD={len(array) - 1}; _kaproto; echo ${{COMPREPLY[*]}}"
            )
            found = subprocess.run(
                [bash, "-c", program], capture_output=True, check=True, text=True
            )
            self.assertEqual(sorted(found.stdout.split()), expected, found.stderr)

    def test_zsh(self) -> None:
        """
        The script for zsh is bash's, after a line that loads C{bashcompinit}.
        """
        first, _newline, rest = self.script("zsh").partition("\n")
        self.assertIn("bashcompinit", first)
        self.assertEqual(rest, self.script("bash"))

    def test_fish(self) -> None:
        """
        The script for fish has every command and option, and marks options that take a value.
        """
        lines = self.script("fish").splitlines()
        for line in [
            "complete -c kaproto -n __fish_use_subcommand -a ping "
            "-d 'Ping a libvirt host or a kaserver.'",
            "complete -c kaproto -n '__fish_seen_subcommand_from ping' -l count -r",
            "complete -c kaproto -n '__fish_seen_subcommand_from ping' -l quiet",
        ]:
            self.assertIn(line, lines)
