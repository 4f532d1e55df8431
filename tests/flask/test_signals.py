"""Blinker's signals of hits, misses, sets, evictions, ends of time, and stale values."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from flask import Flask
from flask_caching import Cache

from quickcache_core.testing import ManualClock
from quickcache_flask import signals


def test_each(app: Flask, make_backend: Any, clock: ManualClock) -> None:
    """The sender is the app; the key is as it is stored."""
    backend = make_backend(
        CACHE_THRESHOLD=2,
        CACHE_DEFAULT_TIMEOUT=10,
        CACHE_OPTIONS={"eviction_policy": "fifo", "stale_ttl": 50},
    )
    told: list[tuple[str, str]] = []
    receivers: dict[str, Any] = {}
    for name in ("hit", "miss", "set", "stale", "evict", "expire"):

        def receive(sender: Flask, key: str, backend: Any, name: str = name) -> None:
            told.append((name, key))
            assert backend.engine is not None

        getattr(signals, f"cache_{name}").connect(receive, sender=app)
        receivers[name] = receive
    backend.get("a")
    backend.set("a", 1)
    backend.get("a")
    backend.set_many({"b": 1, "c": 1})
    clock.advance(11)
    backend.get_or_set("c", lambda: 2)
    clock.advance(100)
    backend.engine.cleanup()
    assert told[:3] == [("miss", "a"), ("set", "a"), ("hit", "a")]
    assert {("evict", "a"), ("stale", "c"), ("expire", "b")} <= set(told)
    for name, receiver in receivers.items():
        getattr(signals, f"cache_{name}").disconnect(receiver, sender=app)
    assert backend.engine._subscriptions == ()


def test_receiver_that_is_gone(app: Flask, make_backend: Any) -> None:
    """Nobody listens any more after the next event."""
    backend = make_backend()

    def receive(sender: Flask, **about: Any) -> None: ...

    signals.cache_set.connect(receive)
    assert len(backend.engine._subscriptions) == 1
    del receive
    gc.collect()
    backend.set("k", 1)
    assert backend.engine._subscriptions == ()


def test_app_that_is_gone() -> None:
    """Signals keep no app, and no cache, alive."""
    app = Flask("gone")
    Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache"})
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None
