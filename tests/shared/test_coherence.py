"""No answer is older than what anyone was told: the oracle on the real protocol, and on wrong ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.shared.oracle import Plan, run
from tests.shared.protocols import WRONG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

FOUND_WITHIN = 30.0
"""Seconds. As a rule it takes two."""


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_protocol_is_found_out(tmp_path: Path, wrong: str) -> None:
    """If the oracle had no teeth, the other test would say nothing."""
    outcome = run(Plan(str(tmp_path), FOUND_WITHIN, processes=4, threads=2, wrong=wrong, first_only=True))
    kinds = {one["kind"] for one in outcome.violations}
    assert kinds & {"stale", "lost", "expired", "overtaken"}, outcome


@pytest.mark.parametrize(
    ("share", "settings"),
    [
        (1.0, {}),
        (0.2, {"serializer": "json", "isolation": "auto"}),
        (0.2, {"near_size": 8}),
        (0.2, {"near_size": 0}),
    ],
    ids=["default", "auto", "near-store-too-small", "no-near-store"],
)
def test_nothing_stale(
    tmp_path: Path, coherence_seconds: float, share: float, settings: dict[str, Any]
) -> None:
    """Under kill -9, SIGSTOP, forks and pauses at every odd moment, with hits in the near store mostly."""
    seconds = coherence_seconds * share
    # Without some work it would prove nothing, and a busy machine takes longer for it.
    for patience in (1, 3, 9):
        place = tmp_path / str(patience)
        place.mkdir()
        outcome = run(Plan(str(place), seconds * patience, processes=4, threads=2, settings=settings))
        assert not outcome.violations, outcome
        counts = outcome.counts
        trouble = counts["killed"] + counts["stopped"]
        if counts["hits"] > 300 * seconds and counts["commits"] > 3 * seconds and trouble > 0:
            break
    assert counts["hits"] > 300 * seconds, outcome
    assert counts["commits"] > 3 * seconds, outcome
    assert trouble > 0, outcome
    if share == 1.0:
        assert min(counts["invalidations"], counts["loads"]) > 0, outcome
    assert counts["unjudged"] + counts["excused"] < counts["gets"] / 20, outcome
    if "near_size" not in settings:
        assert counts["near_hits"] > counts["gets"] / 2, outcome


def test_nothing_stale_in_a_full_map(tmp_path: Path, coherence_seconds: float) -> None:
    """Evictions of live entries are heard of like any other write."""
    settings = {"max_bytes": 4_000_000}
    outcome = run(Plan(str(tmp_path), coherence_seconds * 0.4, processes=4, crowded=True, settings=settings))
    assert not outcome.violations, outcome


def test_nothing_wrong_where_the_files_never_open(tmp_path: Path, small_disk: Path) -> None:
    """Each process then answers as an empty cache does, sums too."""
    (small_disk / "taken").write_bytes(b"x" * shutil.disk_usage(small_disk).free)
    outcome = run(Plan(str(tmp_path), 2.0, processes=3, cache=str(small_disk / "cache")))
    assert not outcome.violations, outcome
    counts = outcome.counts
    assert counts["commits"] == counts["hits"] == 0, outcome
    assert min(counts["sets"], counts["increments"]) > 0, outcome
    assert counts["unstored"] >= counts["increments"], outcome
