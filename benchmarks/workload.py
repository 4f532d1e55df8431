"""The keys that the loops go over."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

SEED = 20_240_601


def stored_keys(count: int) -> list[str]:
    return _hashed(f"user:{number}:profile" for number in range(count))


def asked_keys(count: int) -> list[str]:
    """Equal to the stored keys but other objects, as keys are that a request has just put together.

    In random order, as requests come. Their hashes are known: computing one costs everybody the same.
    """
    keys = stored_keys(count)
    random.Random(SEED).shuffle(keys)
    return keys


def absent_keys(count: int) -> list[str]:
    return _hashed(f"gone:{number}:profile" for number in range(count))


@dataclass(frozen=True)
class SameKeys:
    """The same keys in every round and pass."""

    keys: Sequence[str]

    def timed(self, number: int) -> Sequence[str]:
        return self.keys

    def warm_up(self, number: int) -> Sequence[str]:
        return self.keys


class FreshKeys:
    """New keys for each round and pass, the same for every contender.

    All are kept, so that nobody pays for freeing them.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._made: dict[str, list[str]] = {}

    def timed(self, number: int) -> Sequence[str]:
        return self.batch(f"timed-{number}")

    def warm_up(self, number: int) -> Sequence[str]:
        return self.batch(f"warm-up-{number}")

    def batch(self, name: str) -> Sequence[str]:
        if name not in self._made:
            self._made[name] = _hashed(f"new:{name}:{each}:profile" for each in range(self._count))
        return self._made[name]


class ZipfKeys:
    """Requests for `population` keys by Zipf's law (exponent `skew`), other ones in each round and pass."""

    def __init__(self, count: int, population: int, skew: float = 1.0) -> None:
        self._count = count
        self._keys = asked_keys(population)
        self._cumulated = list(accumulate(1 / rank**skew for rank in range(1, population + 1)))
        self._made: dict[str, list[str]] = {}

    def timed(self, number: int) -> Sequence[str]:
        return self._batch(f"timed-{number}")

    def warm_up(self, number: int) -> Sequence[str]:
        return self._batch(f"warm-up-{number}")

    def _batch(self, name: str) -> Sequence[str]:
        if name not in self._made:
            chooser = random.Random(f"{SEED} {name}")
            total = self._cumulated[-1]
            self._made[name] = [
                self._keys[bisect(self._cumulated, chooser.random() * total)] for _ in range(self._count)
            ]
        return self._made[name]


def _hashed(keys: Iterable[str]) -> list[str]:
    made = list(keys)
    for key in made:
        hash(key)
    return made
