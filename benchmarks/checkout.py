"""
The project as it is when a run begins: a copy, so that editing it meanwhile changes no figure.
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
Another checkout of the project to compare with, for example one of an earlier commit.
"""


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="kaproto-benchmark-checkout-")


@cache
def snapshot() -> Path:
    """
    The copy, made when it is first asked for and deleted when this process ends.

    @return: the folder that has the packages in it.
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
    Tells whether two runs were of the same source.

    @return: the start of a digest of the copy.
    """
    digest = hashlib.sha256()
    for path in sorted(snapshot().rglob("*.py")):
        digest.update(str(path.relative_to(snapshot())).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
