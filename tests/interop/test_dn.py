"""
Tests for distinguished names, compared with those of GnuTLS, which libvirt uses.
"""

from __future__ import annotations

import ctypes
from ctypes.util import find_library

from hypothesis import given, settings
from hypothesis import strategies as st

from kaproto.security.dn import _ATTRIBUTES, distinguishedName
from tests.der import Attribute, certificateFor, name
from tests.interop.support import InteropTestCase

STRINGS = (0x0C, 0x12, 0x13, 0x14, 0x16, 0x1C, 0x04)
"""
Tags of string types.  BMP strings are left out: GnuTLS ignores a NUL at their end, and kaproto
writes such a name in hexadecimal.
"""

ATTRIBUTES = st.tuples(
    st.sampled_from([*_ATTRIBUTES, "1.2.3.4", "2.5.4.97", "2.999.3"]),
    st.sampled_from(STRINGS),
    st.text(' #,+"\\<>;=/abcXYZ09\u00e9\u65e5*?[]\n\0\x7f', max_size=6).map(str.encode),
)


class Datum(ctypes.Structure):
    """
    C{gnutls_datum_t}.
    """

    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_uint))


class DistinguishedNameTests(InteropTestCase):
    """
    Tests for L{distinguishedName}.
    """

    tools = ("virsh",)

    def setUp(self) -> None:
        """
        Load the GnuTLS library that virsh uses.
        """
        super().setUp()
        self.library = ctypes.CDLL(find_library("gnutls") or "libgnutls.so.30")

    def gnutls(self, certificate: bytes) -> str | None:
        """
        @return: the name according to GnuTLS, C{None} if it reports an error.
        """
        handle = ctypes.c_void_p()
        self.assertEqual(self.library.gnutls_x509_crt_init(ctypes.byref(handle)), 0)
        try:
            datum = Datum(certificate, len(certificate))
            imported = self.library.gnutls_x509_crt_import(handle, ctypes.byref(datum), 0)
            self.assertEqual(imported, 0)
            size = ctypes.c_size_t(65536)
            text = ctypes.create_string_buffer(size.value)
            if self.library.gnutls_x509_crt_get_dn(handle, text, ctypes.byref(size)):
                return None
            return text.raw[: size.value].decode("utf-8", "surrogateescape")
        finally:
            self.library.gnutls_x509_crt_deinit(handle)

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.lists(ATTRIBUTES, min_size=1, max_size=2), min_size=1, max_size=4))
    def test_same(self, relative: list[list[Attribute]]) -> None:
        """
        For any name both produce the same text, or neither produces any.
        """
        certificate = certificateFor(name(*relative))
        try:
            own: str | None = distinguishedName(certificate)
        except ValueError:
            own = None
        self.assertEqual(own, self.gnutls(certificate))
