"""
The identity of a client behind a load balancer that terminates TLS, from the PROXY header.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import attrs

from kaproto.security.dn import distinguishedName, nameFromText
from kaproto.security.tls import TLSIdentity
from kaproto.wire.proxyheader import ProxyHeader

__all__ = ["DN_FIELD", "TerminatedTLS"]

DN_FIELD: Final = 0xE0
"""
The default type of the private field that has the distinguished name.
"""

_PRIVATE: Final = range(0xE0, 0xF0)
_NO_CERTIFICATE: Final = "the load balancer does not say that it verified a client certificate"


@attrs.frozen
class TerminatedTLS:
    """
    How a listener reads the client's identity from a balancer that terminates TLS.

    A header gives an identity only if it says that the client sent a certificate and that the
    balancer found it valid.  Missing or malformed fields give no identity.

    @ivar required: whether clients without a verified certificate are refused.
    @ivar field: the type of the private field that has the distinguished name in the form of RFC
        2253, for balancers that do not send the certificate itself.
    """

    required: bool = True
    field: int = attrs.field(default=DN_FIELD)

    @field.validator
    def _checkField(self, _attribute: object, value: int) -> None:
        if value not in _PRIVATE:
            raise ValueError(f"a private field is from {_PRIVATE[0]:#x} to {_PRIVATE[-1]:#x}")

    def identify(self, header: ProxyHeader) -> tuple[TLSIdentity, str | None]:
        """
        @return: the client's identity, and the common name that the balancer sends.  A common name
            is not an identity: two authorities may issue the same one to different people.
        """
        tls = header.tls
        if tls is None or not tls.verified:
            return TLSIdentity(None, None, _NO_CERTIFICATE if self.required else None), None
        dn, fingerprint, problem = None, None, None
        try:
            if tls.certificate is not None:
                fingerprint = sha256(tls.certificate).hexdigest()
                dn = distinguishedName(tls.certificate)
            elif self.field in header.fields:
                dn = nameFromText(header.fields[self.field].decode("utf-8"))
        except ValueError as error:
            problem = f"its name, as sent by the load balancer, is unusable: {error}"
        return TLSIdentity(dn, fingerprint, problem), tls.commonName
