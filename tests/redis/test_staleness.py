"""No answer is older than the bound: the oracle on the real protocol, and on wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.redis.oracle import Plan, run
from tests.redis.protocols import WRONG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

FOUND_WITHIN = 150.0
"""Seconds. As a rule it takes five to twenty."""
AT_LEAST = 5.0
"""Seconds. Processes take their time to start."""


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_protocol_is_found_out(tmp_path: Path, wrong: str) -> None:
    """If the oracle had no teeth, the other test would say nothing."""
    outcome = run(Plan(str(tmp_path), "", FOUND_WITHIN, wrong=wrong, first_only=True))
    assert {one["kind"] for one in outcome.violations} & {"stale", "own", "lives on"}, outcome


@pytest.mark.parametrize(
    ("share", "chaos", "settings"),
    [(1.0, True, {}), (0.3, False, {}), (0.3, True, {"near_size": 0})],
    ids=["trouble", "quiet", "no-near-store"],
)
def test_nothing_older_than_the_bound(
    tmp_path: Path, coherence_seconds: float, share: float, chaos: bool, settings: dict[str, Any]
) -> None:
    """Under kill -9, SIGSTOP of workers and of the server, cut and silent connections, forks and pauses."""
    seconds = max(coherence_seconds * share, AT_LEAST)
    # Without some work it would prove nothing, and a busy machine takes longer for it.
    for patience in (1, 3, 9):
        outcome = run(Plan(str(tmp_path), "", seconds * patience, chaos=chaos, settings=settings))
        assert not outcome.violations, outcome
        counts = outcome.counts
        if counts["sets"] > 5 * seconds and counts["hits"] > 100 * seconds:
            break
    assert counts["sets"] > 5 * seconds, outcome
    assert counts["hits"] > 100 * seconds, outcome
    assert counts["excused"] < counts["gets"] / 100, outcome
    if not chaos:
        assert counts["unavailable"] == counts["unknown"] == counts["excused"] == 0, outcome
    if "near_size" not in settings:
        assert counts["near_hits"] > counts["gets"] / 2, outcome
