"""Numbers that namespaces go by."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

from quickcache_core.testing.lives.kinds import (
    Kinds,
)
from quickcache_core.testing.stores import in_threads


class GenerationContract(Kinds):
    """Each name has a number of its own, which only grows."""

    def test_generations(self) -> None:
        """Each name has its own number, which begins at 0 and only grows."""
        store, _ = self.make()
        assert store.generation("users") == 0
        assert store.next_generation("users") == 1
        assert store.next_generation("users") == 2
        assert store.generation("users") == 2
        assert store.generation("pages") == 0
        assert store.generation("") == 0
        assert len(store) == 0
        assert list(store.keys("")) == []

    def test_generations_of_threads(self) -> None:
        """No two callers get the same number."""
        store, _ = self.make()
        got: list[int] = []

        def work() -> None:
            got.extend(store.next_generation("n") for _ in range(50))

        in_threads(4, work)
        assert sorted(got) == list(range(1, 201))
        assert store.generation("n") == 200
