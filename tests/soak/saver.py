"""A worker in scope `memory` that saves snapshot after snapshot, is killed, and starts from the last one.

python -m tests.soak.saver JOB          the job's settings: `path`, and `word`, where the last saved is told
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.soak import wall

wall.enter()

from quickcache_core import NEVER, QuickCache, QuickCacheConfig  # noqa: E402
from quickcache_core.errors import CacheLoadError, CacheSaveError  # noqa: E402
from tests.soak.crew import Words  # noqa: E402
from tests.soak.life import Diary, Job, live  # noqa: E402

ENTRIES = 100
KEYS = [f"k{n}" for n in range(ENTRIES)]


class Saver:
    def __init__(self, job: Job) -> None:
        self.diary = Diary()
        self.words = Words(Path(job.words)).words
        self.word = int(job.settings["word"])
        self.path = Path(job.settings["path"])
        self.cache = QuickCache(QuickCacheConfig(max_size=1000))
        self.version = max(self.words[self.word], self.load())

    def load(self) -> int:
        """The version in the snapshot: the last that anybody was told of, or the one that was being saved."""
        told = self.words[self.word]
        if not told and not self.path.exists():
            return 0
        try:
            self.cache.load_from_disk(self.path)
        except CacheLoadError as error:
            self.diary.note("lost", what=f"a snapshot, of version {told}: {error}")
            return 0
        found = {version for version, _ in self.cache.get_many(KEYS).values()}
        if self.cache.size() != ENTRIES or (found and max(found) < told):
            self.diary.note("lost", what=f"{sorted(found)}, {self.cache.size()} entries; {told} was saved")
        elif len(found) != 1:
            self.diary.note("wrong", what=f"pieces of several snapshots: {sorted(found)}")
        self.diary.counts["operations"] += ENTRIES
        return max(found, default=0)

    def work(self) -> None:
        self.version += 1
        self.cache.set_many({key: [self.version, "x" * 500] for key in KEYS}, NEVER)
        self.diary.counts["operations"] += ENTRIES
        try:
            self.cache.save_to_disk(self.path)
        except CacheSaveError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            self.diary.counts["failed saves"] += 1
            time.sleep(0.01)
        else:
            self.words[self.word] = self.version

    def rest(self) -> None:
        pass


def main() -> None:
    job = Job.loads(sys.argv[1])
    saver = Saver(job)
    live(job, saver.diary, saver.work, saver.rest)


if __name__ == "__main__":
    main()
