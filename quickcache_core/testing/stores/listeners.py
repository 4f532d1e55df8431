"""What listeners are told."""
# ruff: noqa: S101 - asserts are what a test consists of

from __future__ import annotations

import threading

from quickcache_core.entry import FOREVER
from quickcache_core.events import RemovalCause
from quickcache_core.store.base import Bounds
from quickcache_core.testing.stores.basis import WIDE, Basis


class ListenerContract(Basis):
    """Every entry that leaves is told once, without a lock."""

    def test_removal_causes(self) -> None:
        """Every entry that leaves is told once, with the cause."""
        store, clock = self.make()
        told: list[tuple[str, RemovalCause]] = []
        stop = store.subscribe(lambda key, cause: told.append((key, cause)))
        store.put("a", 1, FOREVER, WIDE)
        store.put("a", 2, FOREVER, WIDE)
        store.remove("a")
        store.put("b", 1, 1.0, WIDE)
        clock.advance(2.0)
        store.get("b", None)
        store.put("c", 1, 1.0, WIDE)
        clock.advance(2.0)
        store.sweep()
        store.put("d", 1, FOREVER, Bounds(1))
        store.put("e", 1, FOREVER, Bounds(1))
        store.clear()
        store.put("f", 1, FOREVER, WIDE)
        store.load([], WIDE)
        assert told == [
            ("a", RemovalCause.REPLACED),
            ("a", RemovalCause.EXPLICIT),
            ("b", RemovalCause.EXPIRED),
            ("c", RemovalCause.EXPIRED),
            ("d", RemovalCause.EVICTED),
            ("e", RemovalCause.CLEARED),
            ("f", RemovalCause.CLEARED),
        ]
        stop()
        stop()
        store.put("g", 1, FOREVER, WIDE)
        store.remove("g")
        assert len(told) == 7

    def test_listeners_run_without_the_lock(self) -> None:
        """They may use the store, and another thread may do so while they run."""
        store, _ = self.filled(1)

        def listener(key: str, cause: RemovalCause) -> None:
            thread = threading.Thread(target=store.put, args=(f"{key} left", 1, FOREVER, WIDE))
            thread.start()
            thread.join(10.0)
            assert not thread.is_alive(), "another thread had to wait for a listener"
            store.put("told", key, FOREVER, WIDE)

        stop = store.subscribe(listener)
        store.remove("k0")
        stop()
        assert store.get("told") == "k0"
        assert store.get("k0 left") == 1
