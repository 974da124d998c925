"""
Tests for L{kaproto.endpointstring}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import endpoints
from twisted.trial.unittest import SynchronousTestCase

from kaproto.endpointstring import innerEndpoint, quoted, takeKeywords, unparsed

WORDS = st.text("ab:=\\, /", max_size=8)


class EndpointStringTests(SynchronousTestCase):
    """
    Tests for parsing and building endpoint strings.
    """

    @given(st.lists(WORDS, min_size=1), st.dictionaries(WORDS, WORDS))
    def test_roundTrip(self, arguments: list[str], keywords: dict[str, str]) -> None:
        """
        Twisted splits an endpoint string into the parts it was made of, whatever they contain.
        """
        parse: Any = endpoints._parse
        self.assertEqual(parse(unparsed(arguments, keywords)), (arguments, keywords))

    def test_quoted(self) -> None:
        """
        The characters at which Twisted splits are quoted.
        """
        self.assertEqual(quoted("O=a:b\\c"), "O\\=a\\:b\\\\c")

    def test_takeKeywords(self) -> None:
        """
        The outer endpoint's keywords are removed, and the inner one's stay.
        """
        keywords = {"from": "192.0.2.1", "interface": "::1"}
        self.assertEqual(takeKeywords(keywords, ("from", "uid")), {"from": "192.0.2.1"})
        self.assertEqual(keywords, {"interface": "::1"})

    def test_nothingToSay(self) -> None:
        """
        An inner endpoint's error without a text is shown by its name.
        """

        def parse(_reactor: object, _text: str) -> None:
            raise OSError

        error = self.assertRaises(ValueError, innerEndpoint, parse, None, "proxy", (), ["a"], {})
        self.assertTrue(str(error).endswith("is not an endpoint: OSError()"), str(error))
