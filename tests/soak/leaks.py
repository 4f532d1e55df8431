"""Whether a process that lives long keeps anything: threads, open files, memory, files on the disk.

The process takes the samples itself, at rest: after each round of work, when what it started has ended. The
first third of them is not looked at; by then everything is warm. *Something grows if the median of the last
third is above that of the middle third by more than is allowed.*
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ALLOWED = {"threads": 1.0, "open files": 3.0, "megabytes": 8.0, "files on disk": 3.0}
"""By how much. A pool of connections has one more or less, and the memory of Python is never quite still."""
ALLOWED_SHARE = 0.05
"""Of memory, beside it."""
FEWEST = 9
"""Samples that say anything."""

Sample = dict[str, float]


def take_sample(directories: Sequence[str] = ()) -> Sample:
    """Of this process, and of what is in these directories."""
    status = Path("/proc/self/status").read_text()
    # Not what is mapped from files that others have mapped, too.
    memory = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    assert memory is not None, status
    return {
        "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
        "open files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "megabytes": int(memory[1]) / 1024,
        "files on disk": sum(len(names) for one in directories for _, _, names in os.walk(one)),
    }


@dataclass(frozen=True)
class Trend:
    """How one figure went."""

    who: str
    what: str
    samples: int
    middle: float
    last: float
    """Medians of the middle and of the last third."""

    @property
    def allowed(self) -> float:
        share = ALLOWED_SHARE * self.middle if self.what == "megabytes" else 0.0
        return ALLOWED[self.what] + share

    @property
    def is_judged(self) -> bool:
        return self.samples >= FEWEST

    @property
    def grows(self) -> bool:
        return self.is_judged and self.last - self.middle > self.allowed

    def __str__(self) -> str:
        verdict = "LEAK" if self.grows else "flat" if self.is_judged else "too few samples to say anything"
        return (
            f"{self.who}: {self.what} {self.middle:.4g}, then {self.last:.4g}"
            f" ({verdict}; allowed +{self.allowed:.3g}; {self.samples:,} samples)"
        )


def trends(who: str, samples: Sequence[Sample]) -> list[Trend]:
    third = len(samples) // 3
    if not third:
        return [Trend(who, what, len(samples), 0.0, 0.0) for what in ALLOWED]
    middle, last = samples[third : 2 * third], samples[2 * third :]
    return [
        Trend(
            who,
            what,
            len(samples),
            median(one[what] for one in middle),
            median(one[what] for one in last),
        )
        for what in ALLOWED
    ]
