"""
Access control: which certificates and logins a server accepts, and by which SASL mechanisms.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.portal import Portal

from kaproto.security.dn import matchesGlob
from kaproto.security.mechanism import MakeMechanism
from kaproto.security.plain import Plain
from kaproto.security.tls import TLSIdentity

__all__ = ["AccessControl", "mechanismsFor"]


def mechanismsFor(portal: Portal, *, secure: bool) -> dict[str, MakeMechanism]:
    """
    @param secure: whether the connection is encrypted or local, so that a client may send its
        password in clear.
    @return: the mechanisms that the portal's checkers can serve, by name, the strongest first.
    """
    mechanisms: dict[str, MakeMechanism] = {}
    interfaces = portal.listCredentialsInterfaces()
    try:
        from kaproto.security.scram import IScramCredentials, ScramSHA256
    except ImportError:
        pass
    else:
        if IScramCredentials in interfaces or IUsernameHashedPassword in interfaces:
            mechanisms[ScramSHA256.name] = ScramSHA256
    if secure and IUsernamePassword in interfaces:
        mechanisms["PLAIN"] = Plain
    return mechanisms


@attrs.define
class AccessControl:
    """
    Who may connect.  The numbers and times allowed are in L{kaproto.limits.Limits}.

    @ivar portal: authenticates clients by SASL; C{None} if they need not log in.
    @ivar tlsAllowedDNs: patterns (L{matchesGlob}) for the name in a TLS client's certificate, at
        least one of which must match; C{None} to accept every name.
    @ivar readOnly: whether all connections are read-only.
    """

    portal: Portal | None = None
    tlsAllowedDNs: Sequence[str] | None = None
    readOnly: bool = False

    def checkCertificate(self, identity: TLSIdentity) -> str | None:
        """
        @return: why a TLS client is refused; C{None} if it is not.
        """
        if identity.problem is not None or self.tlsAllowedDNs is None:
            return identity.problem
        if identity.dn is None:
            return "it has no certificate, and only certain names are allowed (--tls-allowed-dn)"
        if any(matchesGlob(identity.dn, pattern) for pattern in self.tlsAllowedDNs):
            return None
        return f"the name in its certificate, {identity.dn!r}, is not allowed (--tls-allowed-dn)"
