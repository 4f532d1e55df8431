"""A soak of each scope: its oracle, a worker that lives long, others that are killed, what befalls them."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.redis import oracle as staleness
from tests.redis.relay import Relay
from tests.redis.servers import RedisServer
from tests.shared import oracle as coherence
from tests.soak import crew as crews
from tests.soak.crew import Crew, Fault, Schedule, Words
from tests.soak.disk import SmallDisk
from tests.soak.leaks import trends
from tests.soak.life import Job, read_report
from tests.soak.tally import Tally
from tests.soak.wall import VARIABLE, Wall

PAUSE = 0.1
"""Seconds between two faults, on the average."""
MAP = 8_000_000
DISK = 48_000_000
CRAMPED_DISK = 8_000_000
"""Bytes. The first has room for some caches of that size, the second for none, once it is half full."""
_STARTED = ("forked", "executed", "nested")
_ORACLE_FAULTS = ("killed", "stopped", *_STARTED, "hung", "restarted", "cut", "silenced", "slowed")
_OPERATIONS = (
    *("gets", "bulk", "sets", "deletes", "adds", "touches", "increments", "pops"),
    *("clears", "invalidations", "loads", "overtaken"),
)


_WORK = ("operations", "unavailable", "doubted")
"""What workers count besides faults: operations that raised `StoreUnavailable`, and answers of which nobody
knows what they had to be, after such ones.
"""


class Soak:
    """One scope, in a directory of its own."""

    def __init__(self, scope: str, directory: Path, seconds: float) -> None:
        self.tally = Tally(scope)
        self.directory = directory
        self.seconds = seconds
        self.log = directory / "log"
        self.words = directory / "words"
        Words(self.words)
        self.wall = Wall(directory / "wall")
        os.environ[VARIABLE] = str(directory / "wall")
        self.stack = contextlib.ExitStack()
        crews.adopt()

    def __enter__(self) -> Soak:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    # Workers

    def job(self, name: str, **fields: Any) -> Job:
        """For a worker that is killed when the soak is over, if nothing else is said."""
        report = str(self.directory / f"{name}.report")
        return Job(**{"name": name, "report": report, "seconds": 1e9, "words": str(self.words), **fields})

    def begin(self, module: str, survivor: Job) -> None:
        """The worker that lives as long as the soak."""
        self.began = time.monotonic()
        self.survivor = survivor
        self.process = crews.start(module, survivor.dumps(), self.log)
        self.stack.callback(self._end)

    def disturb(self, crew: Crew, faults: list[Fault]) -> None:
        """As long as it lives."""
        self.crew = crew
        self.stack.callback(crew.close)
        end = self.began + self.seconds + crews.PATIENCE

        def goes_on() -> bool:
            return self.process.poll() is None and time.monotonic() < end

        crews.disturb(goes_on, faults, self.tally.faults, PAUSE, crew)

    def _end(self) -> None:
        code = self.process.poll()
        if code is None:
            self.tally.fail("the worker hangs")
            self.process.kill()
            self.process.wait()
        elif code:
            self.tally.fail(f"the worker ended with {code}", log=crews.tail(self.log))

    def finish(self) -> Tally:
        """Put together what all of them told."""
        survivor = self.survivor
        self.stack.close()
        self.tally.seconds = time.monotonic() - self.began
        if hanging := crews.left_over():
            # Of workers that were killed.
            self.tally.found.append({"kind": "hang", "what": f"{len(hanging)} children"})
        for why in self.crew.ended:
            self.tally.fail(why)
        workers: dict[str, Counter[str]] = {}
        for report in sorted(self.directory.glob("*.report")):
            told = read_report(report)
            self.tally.found += told.found
            if report == Path(survivor.report):
                self.tally.trends = trends(survivor.name, told.samples)
            name = survivor.name if report == Path(survivor.report) else "the others"
            mine = workers.setdefault(name, Counter())
            for what in _WORK:
                mine[what] += told.counts.pop(what, 0)
            self.tally.faults.update(told.counts)
        for name, counts in workers.items():
            self.tally.operations += counts["operations"]
            shown = ", ".join(f"{counts[what]:,} {what}" for what in _WORK)
            self.tally.notes.append(f"{name}: {shown}")
        if self.tally.found:
            self.tally.notes.append(f"the end of the log:\n{crews.tail(self.log)}")
        return self.tally

    def wait_for(self, path: Path) -> None:
        """A worker or an oracle makes it, or has failed, which is found at the end."""
        end = time.monotonic() + crews.PATIENCE
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)

    # Oracles

    def begin_oracles(self, *runs: Callable[[], coherence.Outcome]) -> None:
        """One after the other, in a thread that is waited for at the end."""

        def work() -> None:
            for run in runs:
                try:
                    self._take(run())
                except Exception as error:
                    self.tally.fail(f"an oracle failed: {error}")

        thread = threading.Thread(target=work)
        thread.start()
        self.stack.callback(thread.join)

    def _take(self, outcome: coherence.Outcome) -> None:
        counts = outcome.counts
        self.tally.operations += sum(counts.get(name, 0) for name in _OPERATIONS)
        for name in _ORACLE_FAULTS:
            self.tally.faults["started anew" if name in _STARTED else name] += counts.get(name, 0)
        self.tally.found += outcome.violations
        told = ("excused", "unjudged", "unavailable", "commits", "near_hits", "worst_ms")
        shown = ", ".join(f"{counts[name]:,} {name}" for name in told if name in counts)
        self.tally.notes.append(f"oracle: {shown}")

    # Disks

    def disk(self, name: str, size: int) -> SmallDisk:
        disk = SmallDisk(self.directory / name, size)
        self.stack.callback(disk.close)
        if not disk.mounted:
            self.tally.notes.append(
                f"no small {name} can be mounted here (that takes root): it is never full"
            )
        return disk


def fill(disk: SmallDisk, lefts: tuple[int, ...] = (0,), seconds: tuple[float, ...] = (0.1, 0.5)) -> Fault:
    """The disk is full for a while, or has next to nothing left."""

    def fault(schedule: Schedule) -> str | None:
        if not disk.mounted:
            return None
        disk.fill(random.choice(lefts))
        schedule.later(random.choice(seconds), disk.free)
        return "full disk"

    return fault


def soak_memory(directory: Path, seconds: float, mistake: str = "") -> Tally:
    with Soak("memory", directory, seconds) as soak:
        disk = soak.disk("disk", 4_000_000)
        saver_jobs = []
        for n in range(2):
            place = disk.path / f"saver{n}"
            place.mkdir()
            settings = {"path": str(place / "all.qc"), "word": n + 1}
            saver_jobs.append(soak.job(f"saver{n}", settings=settings).dumps)
        crew = Crew("tests.soak.saver", saver_jobs, soak.log)
        worker = disk.path / "worker"
        worker.mkdir()
        survivor = soak.job(
            "worker",
            seconds=seconds,
            settings={"directory": str(worker)},
            directories=[str(worker), os.environ["QUICKCACHE_RUNTIME_DIR"]],
            mistake=mistake,
        )
        faults = [crew.kill_one, crew.stop_one, fill(disk, (0, 20_000)), crews.jump(soak.wall)]
        soak.begin("tests.soak.in_memory", survivor)
        soak.disturb(crew, faults)
        return soak.finish()


def neighbours(soak: Soak, count: int = 2, **fields: Any) -> tuple[Crew, list[str]]:
    """Workers that are killed. Each has another name than the one before it, which may have left something on
    its way; after five, a name comes again.
    """

    def jobs(n: int) -> Callable[[], str]:
        lives = itertools.cycle(range(5))

        def one() -> str:
            return soak.job(f"neighbour{n}.{next(lives)}", others=["survivor"], **fields).dumps()

        return one

    names = [f"neighbour{n}.{life}" for n in range(count) for life in range(5)]
    return Crew("tests.soak.dweller", [jobs(n) for n in range(count)], soak.log), names


def soak_shared(directory: Path, seconds: float, mistake: str = "") -> Tally:
    """Half of the time its oracle has a disk that fills up, and half of it one without room for the map."""
    with Soak("shared", directory, seconds) as soak:
        disk, cramped = soak.disk("disk", DISK), soak.disk("cramped disk", CRAMPED_DISK)
        place = disk.path / "cache"
        settings = {"location": f"shared://{place}", "max_bytes": MAP}
        crew, names = neighbours(soak, settings=settings)
        survivor = soak.job(
            "survivor",
            seconds=seconds,
            settings=settings,
            others=names,
            directories=[str(place)],
            mistake=mistake,
        )

        def plan(name: str, where: SmallDisk, **fields: Any) -> coherence.Plan:
            (directory / name).mkdir()
            return coherence.Plan(
                str(directory / name),
                seconds / 2,
                cache=str(where.path / "oracle's"),
                settings={"max_bytes": MAP},
                surroundings="tests.soak.wall",
                **fields,
            )

        cramped.fill(CRAMPED_DISK // 2)
        soak.begin_oracles(
            lambda: coherence.run(plan("roomy", disk)),
            lambda: coherence.run(plan("cramped", cramped, crowded=True)),
        )
        soak.begin("tests.soak.dweller", survivor)
        # The room for the files of a cache is taken when it begins: only then it may come too short.
        for one in (place, disk.path / "oracle's"):
            soak.wait_for(one / "stats.bin")
        faults = [
            crew.kill_one,
            crew.stop_one,
            fill(disk),
            fill(cramped, (0, 100_000)),
            crews.jump(soak.wall),
        ]
        soak.disturb(crew, [*faults, *[calm] * 8])
        return soak.finish()


class Trouble:
    """What befalls a server, one thing at a time."""

    def __init__(self, server: RedisServer, relay: Relay, words: Words) -> None:
        self.server = server
        self.relay = relay
        self.words = words

    def _begin(self, schedule: Schedule, seconds: float, undo: Callable[[], object]) -> bool:
        if self.words.trouble % 2:
            return False
        self.words.trouble += 1

        def end() -> None:
            undo()
            self.words.trouble += 1

        schedule.later(seconds, end)
        return True

    def hang(self, schedule: Schedule) -> str | None:
        if not self._begin(schedule, random.choice((0.05, 0.5, 1.5)), self.server.resume):
            return None
        self.server.hang()
        return "hung"

    def die(self, schedule: Schedule) -> str | None:
        if not self._begin(schedule, random.choice((0.0, 0.3, 1.5)), self.server.start):
            return None
        self.server.kill()
        return "restarted"

    def be_slow(self, schedule: Schedule) -> str | None:
        if not self._begin(schedule, random.choice((0.2, 1.0)), self.relay.go_on):
            return None
        # The last one is longer than anybody waits for a reply.
        self.relay.slow_down(random.choice((0.002, 0.02, 0.2, 1.3)))
        return "slowed"


def calm(_: Schedule) -> None:
    """Nothing happens."""


def soak_redis(directory: Path, seconds: float, mistake: str = "") -> Tally:
    with Soak("redis", directory, seconds) as soak:
        (directory / "oracle").mkdir()
        plan = staleness.Plan(
            str(directory / "oracle"), "", seconds, processes=3, slow=True, surroundings="tests.soak.wall"
        )
        soak.begin_oracles(lambda: staleness.run(plan))
        server = soak.stack.enter_context(RedisServer())
        relay = Relay(server.port)
        soak.stack.callback(relay.close)
        fields = {"settings": {"location": f"redis://127.0.0.1:{relay.port}/0"}, "doubt": 8.0}
        crew, names = neighbours(soak, **fields)
        survivor = soak.job(
            "survivor",
            seconds=seconds,
            others=names,
            directories=[os.environ["QUICKCACHE_RUNTIME_DIR"]],
            mistake=mistake,
            **fields,
        )
        trouble = Trouble(server, relay, Words(soak.words))
        faults = [crew.kill_one, crew.stop_one, crews.jump(soak.wall)]
        faults += [trouble.hang, trouble.die, trouble.be_slow]
        soak.begin("tests.soak.dweller", survivor)
        soak.disturb(crew, [*faults, *[calm] * 24])
        return soak.finish()


SCOPES: dict[str, Callable[..., Tally]] = {
    "memory": soak_memory,
    "shared": soak_shared,
    "redis": soak_redis,
}
