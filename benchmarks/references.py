"""Textbook policies with no cache around them: what the engine's hit counts are checked against."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from itertools import count


def fifo(keys: Sequence[str], capacity: int) -> int:
    """Hits of first in, first out."""
    queue: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for key in keys:
        if key in queue:
            hits += 1
            continue
        if len(queue) >= capacity:
            queue.popitem(last=False)
        queue[key] = None
    return hits


def lru(keys: Sequence[str], capacity: int) -> int:
    """Hits of least recently used."""
    order: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for key in keys:
        if key in order:
            hits += 1
            order.move_to_end(key)
            continue
        if len(order) >= capacity:
            order.popitem(last=False)
        order[key] = None
    return hits


def lfu(keys: Sequence[str], capacity: int) -> int:
    """Hits of least frequently used, counted while a key is in the cache, least recently used among equals.

    By a heap with stale marks, to share no idea with the engine's linked counts.
    """
    marks: dict[str, tuple[int, int]] = {}
    heap: list[tuple[int, int, str]] = []
    clock = count()
    hits = 0
    for key in keys:
        mark = marks.get(key)
        if mark is not None:
            hits += 1
            uses = mark[0] + 1
        else:
            uses = 1
            if len(marks) >= capacity:
                while True:
                    worst = heapq.heappop(heap)
                    if marks.get(worst[2]) == worst[:2]:
                        del marks[worst[2]]
                        break
        used = next(clock)
        marks[key] = (uses, used)
        heapq.heappush(heap, (uses, used, key))
    return hits


def lfuda(keys: Sequence[str], capacity: int) -> int:
    """Hits of LFU with dynamic aging, of which at most 10 uses count, least recently used among equals.

    By a heap with stale marks, as `lfu`.
    """
    uses: dict[str, int] = {}
    marks: dict[str, tuple[int, int]] = {}
    heap: list[tuple[int, int, str]] = []
    clock = count()
    age = hits = 0
    for key in keys:
        if key in marks:
            hits += 1
            uses[key] = min(10, uses[key] + 1)
        else:
            while len(marks) >= capacity:
                rank, used, worst = heapq.heappop(heap)
                if marks.get(worst) == (rank, used):
                    del marks[worst]
                    age = rank
            uses[key] = 1
        marks[key] = (age + uses[key], next(clock))
        heapq.heappush(heap, (*marks[key], key))
    return hits


def locmem(keys: Sequence[str], capacity: int) -> int:
    """Hits of Django's LocMemCache: least recently used, but a full cache drops a third of its entries.

    As `LocMemCache` of Django 5.2 does it, in a tenth of the time; `hit_ratio` compares the two on short
    traces.
    """
    order: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for key in keys:
        if key in order:
            hits += 1
            order.move_to_end(key, last=False)
            continue
        if len(order) >= capacity:
            for _ in range(len(order) // 3):
                order.popitem()
        order[key] = None
        order.move_to_end(key, last=False)
    return hits


def optimum(keys: Sequence[str], capacity: int) -> int:
    """Hits of Belady's algorithm, which knows the future and keeps what is asked for soonest.

    It may refuse a newcomer, as no cache here does.
    """
    never = len(keys)
    following = [never] * len(keys)
    last: dict[str, int] = {}
    for index in range(len(keys) - 1, -1, -1):
        following[index] = last.get(keys[index], never)
        last[keys[index]] = index
    stored: dict[str, int] = {}
    heap: list[tuple[int, str]] = []
    hits = 0
    for index, key in enumerate(keys):
        if key in stored:
            hits += 1
        stored[key] = following[index]
        heapq.heappush(heap, (-following[index], key))
        while len(stored) > capacity:
            latest, victim = heapq.heappop(heap)
            if stored.get(victim) == -latest:
                del stored[victim]
    return hits
