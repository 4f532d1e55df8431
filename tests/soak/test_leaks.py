"""The rule by which something counts as a leak."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.soak.leaks import ALLOWED, FEWEST, take_sample, trends

FLAT = dict.fromkeys(ALLOWED, 10.0)


def growing(what: str, by: float, count: int = 30) -> list[dict[str, float]]:
    """As much more in the last third as in the middle one as would be a leak, or not."""
    third = count // 3
    return [{**FLAT, what: FLAT[what] + by * (n // third)} for n in range(count)]


@pytest.mark.parametrize("what", ALLOWED)
def test_growth_beyond_what_is_allowed(what: str) -> None:
    """The last third is compared with the middle one, and nothing else grows."""
    allowed = ALLOWED[what] + (0.05 * (FLAT[what] + ALLOWED[what]) if what == "megabytes" else 0.0)
    assert [trend.what for trend in trends("worker", growing(what, 1.2 * allowed)) if trend.grows] == [what]
    assert not any(trend.grows for trend in trends("worker", growing(what, 0.9 * ALLOWED[what])))


def test_warming_up() -> None:
    """What comes in the first third, and stays, is no leak; nor is what comes once and goes."""
    samples = [{**FLAT, "threads": 1.0}] * 10 + [FLAT] * 20
    samples[25] = {**FLAT, "open files": 500.0}
    assert not any(trend.grows for trend in trends("worker", samples))


def test_too_few_samples() -> None:
    """They say nothing, and it is said that they don't."""
    for count in (0, 1, 2, FEWEST - 1):
        found = trends("worker", [{**FLAT, "threads": 100.0 * n} for n in range(count)])
        assert len(found) == len(ALLOWED)
        assert not any(trend.grows for trend in found)
        assert all("too few" in str(trend) for trend in found)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_sample(tmp_path: Path) -> None:
    """Files that are open, and files that are there, are counted."""
    before = take_sample([str(tmp_path)])
    with (tmp_path / "file").open("w"):
        after = take_sample([str(tmp_path)])
    assert after["open files"] == before["open files"] + 1
    assert (before["files on disk"], after["files on disk"]) == (0, 1)
    assert after["threads"] == len(os.listdir("/proc/self/task")) >= 1  # noqa: PTH208
    assert after["megabytes"] > 1
