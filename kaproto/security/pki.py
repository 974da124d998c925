"""
The paths of libvirt's certificate files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs

__all__ = ["PKI_DIRECTORY", "CertificateFiles", "clientFiles", "serverFiles"]

PKI_DIRECTORY: Final = Path("/etc/pki")
"""
The folder of a machine's certificates.
"""


@attrs.frozen
class CertificateFiles:
    """
    The paths of PEM files.

    @ivar ca: the certificates of the authorities trusted to sign the peer's certificate.
    @ivar certificate: this end's certificate, followed by any intermediate ones; C{None} for a
        client without a certificate.
    @ivar key: the private key of that certificate.
    @ivar crl: the authorities' revocation lists; C{None} to check no revocations.
    @ivar server: whether this end is the server.
    """

    ca: Path
    certificate: Path | None
    key: Path | None
    crl: Path | None
    server: bool


def serverFiles(
    directory: Path = PKI_DIRECTORY,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    crl: Path | None = None,
) -> CertificateFiles:
    """
    Find a server's files in the places where libvirtd looks.

    @param directory: the folder that has libvirt's default file names.
    @param ca: instead of C{CA/cacert.pem}.
    @param certificate: instead of C{libvirt/servercert.pem}.
    @param key: instead of C{libvirt/private/serverkey.pem}.
    @param crl: instead of C{CA/cacrl.pem}, which is optional.
    """
    return CertificateFiles(
        ca or directory / "CA/cacert.pem",
        certificate or directory / "libvirt/servercert.pem",
        key or directory / "libvirt/private/serverkey.pem",
        crl or _listed(directory / "CA/cacrl.pem"),
        server=True,
    )


def clientFiles(
    pkipath: Path | None = None, directory: Path = PKI_DIRECTORY, home: Path | None = None
) -> CertificateFiles:
    """
    Find a client's files in the places where libvirt's own client looks.

    @param pkipath: a folder that has C{cacert.pem}, C{clientcert.pem}, C{clientkey.pem} and
        C{cacrl.pem}.  C{clientcert.pem} and C{clientkey.pem} may be missing together, and
        C{cacrl.pem} may be missing.
    @param directory: without C{pkipath}, the folder that has libvirt's default file names.
    @param home: the home folder, whose C{.pki/libvirt} takes precedence; by default the user's home
        folder, but none for root.
    """
    if pkipath is not None:
        ca, certificate, key = (pkipath / f"{name}.pem" for name in ("cacert", *_OWN))
        crl = _listed(pkipath / "cacrl.pem")
    else:
        if home is None and os.geteuid() != 0:
            home = Path.home()
        ca = directory / "CA/cacert.pem"
        certificate = directory / "libvirt/clientcert.pem"
        key = directory / "libvirt/private/clientkey.pem"
        crl = _listed(directory / "CA/cacrl.pem")
        if home is not None:
            users = home / ".pki/libvirt"
            ca = _existing(users / "cacert.pem") or ca
            crl = _listed(users / "cacrl.pem") or crl
            own = [_existing(users / f"{name}.pem") for name in _OWN]
            if own[0] is not None and own[1] is not None:
                certificate, key = own[0], own[1]
    if not _existing(certificate) and not _existing(key):
        return CertificateFiles(ca, None, None, crl, server=False)
    return CertificateFiles(ca, certificate, key, crl, server=False)


_OWN: Final = ("clientcert", "clientkey")


def _existing(path: Path) -> Path | None:
    return path if os.access(path, os.F_OK) else None


def _listed(path: Path) -> Path | None:
    """
    @return: the path of a revocation list; C{None} only if there certainly is none.  An unreadable
        list, such as a dangling symbolic link, must not be skipped.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass
    return path
