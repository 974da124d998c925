"""
Copies the project at the beginning of a run, so that edits during the run change no figure.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["BEFORE", "ROOT", "fingerprint", "snapshot"]

ROOT = Path(__file__).parent.parent
COPIED = ("kaproto", "twisted")
BEFORE = os.environ.get("KAPROTO_BEFORE")
"""
Another checkout of the project for comparison, for example of an earlier commit.
"""


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="kaproto-benchmark-checkout-")


@cache
def snapshot() -> Path:
    """
    Copy the project on the first call; the copy is deleted when this process ends.

    @return: the folder that contains the packages.
    """
    folder = Path(_folder().name)
    ignore = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    return folder


@cache
def fingerprint() -> str:
    """
    Identify the source, to tell whether two runs measured the same one.

    @return: the start of a digest of the copy.
    """
    digest = hashlib.sha256()
    for path in sorted(snapshot().rglob("*.py")):
        digest.update(str(path.relative_to(snapshot())).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
