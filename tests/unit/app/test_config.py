"""
Tests for L{kaproto.app.config}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kaproto.app.config import Config, ConfigError, ListenSettings, readConfig, writeConfig

EXAMPLE = """
mode = "mandatory"
interval = 2
insecure = true
tls-allowed-dn = ["CN=a", "CN=b"]

[[listen]]
endpoint = "libvirttls:16514"
auth = "scram:/etc/kaproto/users"
tls-allowed-dn = []

[[listen]]
endpoint = "unix:/run/kaserver/libvirt-sock"
auth = []
"""


class ConfigTestCase(SynchronousTestCase):
    """
    A test case that reads a configuration file.
    """

    def setUp(self) -> None:
        """
        Choose the file's path.
        """
        self.path = Path(self.mktemp())

    def read(self, text: str) -> Config:
        """
        Write C{text} to the file and read it.
        """
        self.path.write_text(text)
        return readConfig(self.path)


class GoodTests(ConfigTestCase):
    """
    Tests for valid files.
    """

    def test_example(self) -> None:
        """
        Keys have the names of the flags, and each listener can have its own authentication.
        """
        self.assertEqual(
            self.read(EXAMPLE),
            Config(
                {
                    "mode": "mandatory",
                    "interval": 2.0,
                    "insecure": True,
                    "tls-allowed-dn": ["CN=a", "CN=b"],
                },
                [
                    ListenSettings("libvirttls:16514", ["scram:/etc/kaproto/users"], []),
                    ListenSettings("unix:/run/kaserver/libvirt-sock", [], None),
                ],
            ),
        )

    def test_empty(self) -> None:
        """
        An empty file sets nothing.
        """
        self.assertEqual(self.read("# nothing\n"), Config({}, []))

    def test_documented(self) -> None:
        """
        The example file of the documentation is valid.
        """
        config = readConfig(Path(__file__).parents[3] / "docs" / "systemd" / "kaserver.toml")
        self.assertEqual([each.auth for each in config.listen], [["scram:/etc/kaproto/users"], []])

    def test_oneTable(self) -> None:
        """
        A single listener can be a plain table.
        """
        config = self.read('[listen]\nendpoint = "unix:/x"')
        self.assertEqual(config.listen, [ListenSettings("unix:/x")])

    def test_written(self) -> None:
        """
        A configuration that is written and read again is unchanged, whatever characters it has.
        """
        values = {
            "mode": 'rules:a"\\\n\x01\x7f\U0001f600',
            "interval": 0.05,
            "count": 7,
            "insecure": False,
            "auth": ["x", "y"],
        }
        config = Config(
            values, [ListenSettings("unix:\u00e4", ["x"], ["CN=*"]), ListenSettings("b")]
        )
        text = writeConfig(config, dict.fromkeys(values, "default"))
        self.assertEqual(self.read(text), config)
        self.assertIn("# default\n", text)


class BadTests(ConfigTestCase):
    """
    Mistakes are reported with the file, the key, and what is allowed.
    """

    def test_values(self) -> None:
        """
        Invalid values and unknown keys.
        """
        listen = '[[listen]]\nendpoint = "unix:/x"\n'
        for text, message in (
            ("interval = 0", "interval takes a number of seconds from 0.05 to 2147483, not 0"),
            ('interval = "5"', "interval takes a number of seconds from 0.05 to 2147483, not '5'"),
            ("insecure = 1", "insecure is true or false, not 1"),
            ("auth = 1", "auth takes a string in quotes, or a list of them, not 1"),
            ("intervall = 5", "there is no key 'intervall'; is interval meant?"),
            ("max_clients = 5", "there is no key 'max_clients'; is max-clients meant?"),
            ("xyz = 5", "there is no key 'xyz'; there are mode, interval, count, "),
            ("check = true", "there is no key 'check'"),
            ('config = "x"', "there is no key 'config'"),
            ('listen = "unix:/x"', "listen takes tables, each as in: [[listen]] endpoint = "),
            (
                "[[listen]]",
                '[[listen]] needs a key endpoint, such as endpoint = "libvirttls:16514"',
            ),
            (listen + "auht = []", "[[listen]] has no key 'auht'; is auth meant?"),
            (listen + "xyz = 1", "[[listen]] has no key 'xyz'; there are endpoint, auth, tls-"),
            (listen + "auth = 1", "[[listen]] auth takes a string in quotes, or a list of them"),
            ("[[listen]]\nendpoint = 1", "[[listen]] endpoint takes a string in quotes, not 1"),
            ("mode =", "is not TOML: Invalid value (at "),
        ):
            error = self.assertRaises(ConfigError, self.read, text)
            self.assertIn(f"{self.path}: {message}", str(error))

    def test_unreadable(self) -> None:
        """
        A file that cannot be opened, decoded or parsed is reported with the reason.
        """
        error = self.assertRaises(ConfigError, readConfig, self.path)
        self.assertEqual(str(error), f"{self.path}: cannot be read: No such file or directory")
        self.path.write_bytes(b"mode = '\xff'")
        error = self.assertRaises(ConfigError, readConfig, self.path)
        self.assertIn(f"{self.path}: cannot be read: 'utf-8' codec", str(error))
        error = self.assertRaises(ConfigError, self.read, "x = " + "[" * 100_000)
        self.assertIn(f"{self.path}: cannot be read: maximum recursion", str(error))
