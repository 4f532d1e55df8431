"""The life of a worker of a soak: rounds of work, each told when it is over, until its time is up."""

from __future__ import annotations

import gc
import json
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.leaks import FEWEST, Sample, take_sample
from tests.soak.mistakes import Leak

_MOST = 50
"""Findings that are told."""


@dataclass
class Job:
    """What a worker is to do; goes to it as JSON."""

    name: str
    report: str
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    """Names of workers whose entries it looks at."""
    directories: list[str] = field(default_factory=list)
    """Where files are counted."""
    doubt: float = 3.0
    """Seconds after a write that failed in which nobody knows what is under its key: it may yet be carried
    out, and then be taken back.
    """
    words: str = ""
    """Where `crew.Words` are."""
    mistake: str = ""
    """Something wrong that has to be found out."""

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Job:
        return cls(**json.loads(text))


class Diary:
    """What a worker did and found. Any thread may write."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """`operations`, and faults."""
        self.found: list[dict[str, Any]] = []
        self.samples: list[Sample] = []

    def note(self, kind: str, **evidence: Any) -> None:
        if len(self.found) < _MOST:
            self.found.append({"kind": kind, "pid": os.getpid(), **evidence})


def live(job: Job, diary: Diary, work: Callable[[], None], come_to_rest: Callable[[], None]) -> None:
    """As long as it is to live, and until there are samples enough.

    What was counted and found is in the report after each round.
    """
    end = time.monotonic() + job.seconds
    rounds = 0
    leak = Leak(job.mistake)
    with Path(job.report).open("a") as report:
        # The one before may have been killed in the middle of a line.
        report.write("\n")
        while True:
            try:
                work()
                come_to_rest()
            except Exception:
                diary.note("error", traceback=traceback.format_exc())
            leak.grow()
            gc.collect()
            line = {
                "sample": take_sample(job.directories),
                "counts": dict(diary.counts),
                "found": diary.found,
            }
            report.write(json.dumps(line) + "\n")
            report.flush()
            diary.counts.clear()
            diary.found = []
            rounds += 1
            if time.monotonic() >= end and rounds >= FEWEST:
                return


def read_report(path: Path) -> Diary:
    """What is told by whole lines: its writer may have been killed in the middle of one."""
    diary = Diary()
    if not path.exists():
        return diary
    for line in path.read_text().split("\n")[:-1]:
        try:
            told = json.loads(line)
        except ValueError:
            # Its writer was killed.
            continue
        diary.samples.append(told["sample"])
        diary.counts.update(told["counts"])
        diary.found += told["found"]
    return diary
