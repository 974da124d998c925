"""
C{kaproto completion}: scripts that complete the command line in a shell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.python.usage import Options, UsageError

from kaproto.cli.command import Command, ExitCode

__all__ = ["Completion", "completionScript"]

_BASH: Final = """\
_kaproto() {{
    local word command=""
    COMPREPLY=()
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$word" in {names}) command="$word"; break;; esac
    done
    case "$command" in
{cases}
        *) COMPREPLY=($(compgen -W "{words}" -- "${{COMP_WORDS[COMP_CWORD]}}"));;
    esac
}}
complete -o default -o nospace -F _kaproto kaproto
"""


class Completion(Command):
    """
    Print a script for your shell.
    """

    synopsis = "bash|zsh|fish"
    longdesc = (
        'For bash put eval "$(kaproto completion bash)" into ~/.bashrc, for zsh eval "$(kaproto '
        'completion zsh)" into ~/.zshrc, for fish write the output of kaproto completion fish to '
        "~/.config/fish/completions/kaproto.fish."
    )

    def parseArgs(self, shell: str) -> None:  # type: ignore[override]
        """
        Take the name of the shell.

        @raise UsageError: for an unknown shell.
        """
        if shell not in ("bash", "zsh", "fish"):
            raise UsageError(f"completion takes bash, zsh or fish, not {shell!r}")
        self["shell"] = shell

    async def run(self, reactor: IReactorTime) -> int:
        """
        Print the script.
        """
        assert self.parent is not None, "it is a subcommand"
        self.write(completionScript(self.parent, self["shell"]))
        return ExitCode.OK


def completionScript(options: Options, shell: str) -> str:
    """
    @param options: the whole command line.
    @param shell: C{"bash"}, C{"zsh"} or C{"fish"}.
    """
    commands = getattr(options, "subCommands", [])
    flags = {name: list(_flags(kind())) for name, _short, kind, _help in commands}
    top = list(_flags(options))
    if shell == "fish":
        summaries = {name: text for name, _short, _kind, text in commands}
        return "\n".join(_fish(summaries, flags, top))
    script = _bash(flags, top)
    return script if shell == "bash" else "autoload -U +X bashcompinit && bashcompinit\n" + script


def _flags(options: Options) -> Iterator[str]:
    """
    @return: the long options, with an equals sign after those that take a value.
    """
    yield from sorted({*options.longOpt} - {"version", "help", "_shell-completion="})
    yield "help"


def _bash(flags: Mapping[str, list[str]], top: list[str]) -> str:
    cases = "\n".join(
        f'        {name}) COMPREPLY=($(compgen -W "{" ".join(_dashed(own))}" -- '
        '"${COMP_WORDS[COMP_CWORD]}"));;'
        for name, own in flags.items()
    )
    words = " ".join([*flags, *_dashed(top)])
    return _BASH.format(names="|".join(flags), cases=cases, words=words)


def _dashed(flags: list[str]) -> list[str]:
    return [f"--{each}" for each in flags]


def _fish(
    summaries: Mapping[str, str], flags: Mapping[str, list[str]], top: list[str]
) -> Iterator[str]:
    yield "complete -c kaproto -f"
    for name, text in summaries.items():
        yield f"complete -c kaproto -n __fish_use_subcommand -a {name} -d '{text}'"
    scopes = {"__fish_use_subcommand": top} | {
        f"'__fish_seen_subcommand_from {name}'": own for name, own in flags.items()
    }
    for condition, own in scopes.items():
        for flag in own:
            value = " -r" if flag.endswith("=") else ""
            yield f"complete -c kaproto -n {condition} -l {flag.removesuffix('=')}{value}"
