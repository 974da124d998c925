"""
Compiles the C programs on first use, and keeps them in a cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["BuildError", "build", "missingCompiler"]

HERE = Path(__file__).parent
FLAGS = ("-O2", "-Wall", "-Wextra")
TLS_FLAGS = ("-DWITH_TLS", "-lssl", "-lcrypto")


class BuildError(Exception):
    """
    A program cannot be compiled; the text says what to install.
    """


def missingCompiler() -> str | None:
    """
    Check for a compiler.

    @return: the reason why nothing can be compiled; L{None} if there is a compiler.
    """
    if _compiler() is None:
        return "needs a C compiler: install gcc or clang, or name one in CC"
    return None


def build(name: str, *, tls: bool = False) -> Path:
    """
    Compile a program, unless the same source was compiled before.

    @param name: the source file's name without C{.c}.
    @param tls: whether to build with TLS, which requires the headers of OpenSSL.
    @return: the program.
    @raise BuildError: if there is no compiler, or it fails.
    """
    compiler = _compiler()
    if compiler is None:
        raise BuildError(f"{name} {missingCompiler()}")
    source = HERE / f"{name}.c"
    last = TLS_FLAGS if tls else ()
    digest = hashlib.sha256(" ".join((compiler, *FLAGS, *last)).encode())
    for file in (source, HERE / "wire.h"):
        digest.update(file.read_bytes())
    program = _cache() / f"{name}-{digest.hexdigest()[:16]}"
    if not program.exists():
        unfinished = program.with_suffix(f".{os.getpid()}")
        command = [compiler, *FLAGS, "-o", str(unfinished), str(source), *last]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            hint = "; TLS needs the headers of OpenSSL (libssl-dev)" if tls else ""
            raise BuildError(f"{' '.join(command)} failed{hint}:\n{done.stderr}")
        unfinished.replace(program)
    return program


def _compiler() -> str | None:
    names = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    return next((path for path in map(shutil.which, names) if path), None)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "kaproto-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
