"""`pytest --again`: thousands of tests start processes and servers, and now and then the machine has no time.

Up to `MOST` tests that failed are run again, alone, and have to pass `TIMES` over; then the run passes, and
they are told as unstable. Nothing excuses what an oracle has found, nor a run that didn't come to its end.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

MOST = 3
TIMES = 3
NEVER = "::test_nothing_"
"""Part of the names of tests that look for a wrong answer at random: if they found one, it is there."""


class Again:
    """In the process that sees the reports of all tests."""

    def __init__(self) -> None:
        self.failed: dict[str, bool] = {}
        """By the name of the test: whether that may be excused."""
        self.told = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            # A process that crashed was in no phase of a test.
            excusable = report.when in ("setup", "call", "teardown") and NEVER not in report.nodeid
            self.failed[report.nodeid] = excusable and self.failed.get(report.nodeid, True)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus != pytest.ExitCode.TESTS_FAILED or not 0 < len(self.failed) <= MOST:
            return
        if not all(self.failed.values()):
            return
        for time in range(1, TIMES + 1):
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-n",
                "0",
                *_options(session.config),
                *self.failed,
            ]
            found = subprocess.run(
                command, cwd=session.config.rootpath, capture_output=True, text=True, check=False
            )
            if found.returncode:
                self.told = f"failed again, alone, time {time} of {TIMES}:\n{found.stdout}{found.stderr}"
                return
        self.told = f"UNSTABLE: passed {TIMES} times when run again, alone: {', '.join(self.failed)}"
        session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.told:
            terminalreporter.section("again")
            terminalreporter.write_line(self.told)


def _options(config: pytest.Config) -> list[str]:
    names = ("stress-seconds", "coherence-seconds", "hypothesis-profile")
    return [
        f"--{name}={value}" for name in names if (value := config.getoption(f"--{name}", None)) is not None
    ]
