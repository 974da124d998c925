"""
Tests for the alerts in C{docs/monitoring} and for the metrics, with Prometheus's own tool.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from tests.interop.test_status import StatusTestCase

FOLDER = Path(__file__).parent
ALERTS = FOLDER.parent.parent / "docs" / "monitoring" / "alerts.yml"


def promtool(*arguments: str | Path, text: str = "") -> tuple[int, str]:
    """
    Run promtool.

    @param text: its standard input.
    @return: its exit status and all of its output.
    """
    done = subprocess.run(
        ["promtool", *arguments],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


class PromtoolTests(StatusTestCase):
    """
    Tests for C{promtool check} and C{promtool test}.
    """

    def setUp(self) -> None:
        """
        Skip without promtool, even in continuous integration, where C{.ci/run} may fail to get it.
        """
        if shutil.which("promtool") is None:
            raise SkipTest("promtool is not installed")
        return super().setUp()

    def test_alerts(self) -> None:
        """
        The alerts are valid, and fire with the right text when they should.
        """
        for arguments in (("check", "rules", ALERTS), ("test", "rules", FOLDER / "alerts.yml")):
            status, output = promtool(*arguments)
            self.assertEqual(status, 0, output)

    async def test_metrics(self) -> None:
        """
        The metrics follow Prometheus's conventions.
        """
        await self.start()
        await self.client()
        _code, text = await self.get("/metrics")
        self.assertIn("kaproto_connections_opened_total 1.0\n", text)
        self.assertEqual(await deferToThread(promtool, "check", "metrics", text=text), (0, ""))
