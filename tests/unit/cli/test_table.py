"""
Tests for L{kaproto.cli.table}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kaproto.cli.table import table


class TableTests(SynchronousTestCase):
    """
    Tests for tables on a terminal.
    """

    def test_table(self) -> None:
        """
        Columns are as wide as their widest cell, and control characters are escaped.
        """
        rows = [(1, True, None, "x"), (100, False, "", "\x1b[2Jevil")]
        self.assertEqual(
            list(table(("ID", "KEEPALIVE", "WHO", "OPENED"), rows)),
            [
                "ID   KEEPALIVE  WHO  OPENED",
                "1    yes        -    x",
                r"100  no         -    \x1b[2Jevil",
            ],
        )
        self.assertEqual(list(table(("ID", "WHO"), [])), ["ID  WHO"])
