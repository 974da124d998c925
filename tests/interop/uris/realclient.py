"""
libvirt's own client, through the distribution's Python bindings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import libvirt

__all__ = ["tryAll"]


def tryAll(uris: Iterable[str], done: Callable[[str, str | None], None]) -> None:
    """
    Open and close each URI, and report its error, C{None} for success.
    """
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    for uri in uris:
        try:
            if uri.startswith("ro "):
                libvirt.openReadOnly(uri[3:]).close()
            else:
                libvirt.openAuth(uri, [[], lambda _credentials, _data: -1, None], 0).close()
        except libvirt.libvirtError as error:
            done(uri, str(error))
        else:
            done(uri, None)
