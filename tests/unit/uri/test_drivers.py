"""
Tests for L{kaproto.uri.drivers}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.uri import checkName, isURI


class IsURITests(SynchronousTestCase):
    """
    Tests for telling URIs from endpoint strings.
    """

    def test_uris(self) -> None:
        """
        libvirt's connection URIs are URIs.
        """
        for text in (
            "qemu:///system",
            "qemu+tcp://host/system",
            "test+unix:///default?socket=/run/x",
            "remote+tls://host/",
            "QEMU+TCP://host/system",
            "qemu:/system",
            "qemu+tcp:/system",
            "other+tcp:/system",
            "test+unix:/default",
            "qemu+://host",
            "q-x.1://host",
        ):
            self.assertTrue(isURI(text), text)

    def test_endpoints(self) -> None:
        """
        Endpoint strings, host names and paths are not URIs.
        """
        for text in (
            "tcp:host:16509",
            "unix:/run/libvirt/libvirt-sock",
            "tls:host:16514",
            "host",
            "host/system",
            "host:16509",
            "/run/libvirt/libvirt-sock",
            "",
            ":",
            "://host",
            "+tcp://host",
            "1q://host",
            " qemu:///system",
        ):
            self.assertFalse(isURI(text), text)


class NameTests(SynchronousTestCase):
    """
    Tests for the names that a libvirtd can open.
    """

    def test_good(self) -> None:
        """
        Paths that the driver opens are valid, and so is any path of an unknown driver.
        """
        for driver, path in (
            ("qemu", "/system"),
            ("QEMU", "/session"),
            ("qemu", ""),
            ("xen", "/"),
            ("vmwareplayer", "/session"),
            ("test", "/etc/host.xml"),
            ("cloud", "/anything"),
        ):
            checkName(driver, path)

    def test_mistakes(self) -> None:
        """
        The error for an invalid name suggests a valid one.
        """
        for driver, path, message in (
            (
                "qemu",
                "/sytem",
                "qemu driver has no /sytem; it opens qemu:///system or qemu:///sess",
            ),
            ("qemu", "/system/", "it opens qemu:///system"),
            ("lxc", "/session", "lxc driver has no /session; it opens lxc:///system"),
            ("qmeu", "/system", "libvirt has no driver 'qmeu'; is qemu meant?"),
            ("tests", "/default", "is test meant?"),
        ):
            error = self.assertRaises(ValueError, checkName, driver, path)
            self.assertIn(message, str(error))
