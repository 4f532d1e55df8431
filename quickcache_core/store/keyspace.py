"""A part of a store under names of its own: namespaces, and versions of an application."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.errors import CacheMiss, KeyExpired, KeyNotFound
from quickcache_core.keys import check_key
from quickcache_core.metrics.counters import Counters
from quickcache_core.store.base import ABSENT, Bounds, Presence, Record, RemovalListener, Store
from quickcache_core.store.life import ASK, Found, Life

if TYPE_CHECKING:
    from quickcache_core.store.memory import MemoryStore
    from quickcache_core.store.redis.store import RedisStore
    from quickcache_core.store.shared.store import SharedStore

SEPARATOR = "\x1f"
"""The control character "unit separator": keys that begin with it belong to keyspaces."""
_LIVE = Presence.LIVE


def namespaces_in(key: str) -> Iterator[str]:
    """The names of the generations that a key belongs to, as the store has them that has the key."""
    name = ""
    while key.startswith(SEPARATOR):
        if key.startswith(SEPARATOR * 2):
            version, found, key = key[2:].partition(SEPARATOR)
            name = f"{SEPARATOR * 2}{version}{SEPARATOR}"
            continue
        inner, _, rest = key[1:].partition(SEPARATOR)
        _, found, key = rest.partition(SEPARATOR)
        if not found:
            return
        name = f"{name}{SEPARATOR}{inner}" if name else inner
        yield name


class _Token(NamedTuple):
    full: str
    """The key with the prefix of when the load began."""
    inner: object


class KeyspaceStore(Store):
    """All of a store's methods, for the keys behind a prefix of another store.

    With a `namespace` the prefix holds a generation, and `clear` starts a new one: constant time, for all
    processes that share the store, and what is being written meanwhile is cleared as well. Entries of former
    generations can't be reached any more; they leave as the others do, when they expire or room is needed.
    Without one the prefix never changes, and `clear` clears the store that this is a part of.

    Counts are those of this keyspace in this process, beside those of the store. Evictions and expirations
    are counted by the store alone, and what has expired isn't counted as an entry. Looking at all keys takes
    time by the number of all entries of the store.
    """

    def __init__(
        self,
        root: MemoryStore | SharedStore | RedisStore | KeyspaceStore,
        *,
        namespace: str = "",
        prefix: str = "",
    ) -> None:
        self.root = root
        self._namespace = namespace
        self._prefix = prefix
        self._known = (-1, "")
        """A generation, and the prefix of keys in it."""
        self._root_get = root.get
        self.counters = Counters()
        self.hits = 0
        self.misses = 0

    @property
    def prefix(self) -> str:
        """What stands before each key at present."""
        namespace = self._namespace
        if not namespace:
            return self._prefix
        generation = self.root.generation(namespace)
        known = self._known
        if generation != known[0]:
            # One object: another thread, which knows an older generation, may be doing the same.
            known = (generation, f"{SEPARATOR}{namespace}{SEPARATOR}{generation}{SEPARATOR}")
            self._known = known
        return known[1]

    def _full(self, key: str) -> str:
        check_key(key)
        return self.prefix + key

    def identity(self, key: str) -> str:
        return self.root.identity(self._full(key))

    # Reading

    @property
    def get(self) -> Callable[..., Any]:
        return self._get

    def _get(self, key: str, default: Any = MISSING) -> Any:
        full = self._full(key)
        if default is ASK:
            answer = self._root_get(full, ASK)
            if answer is ASK:
                self.misses += 1
            elif answer.__class__ is not Found or answer.is_fresh:
                self.hits += 1
            return answer
        if default is not MISSING:
            value = self._root_get(full, ABSENT)
            if value is ABSENT:
                self.misses += 1
                return default
            self.hits += 1
            return value
        try:
            value = self._root_get(full)
        except CacheMiss as miss:
            self.misses += 1
            raise (KeyExpired if isinstance(miss, KeyExpired) else KeyNotFound)(key) from None
        self.hits += 1
        return value

    def count(self, *, hit: bool) -> None:
        self.root.count(hit=hit)
        if hit:
            self.hits += 1
        else:
            self.misses += 1

    def look(self, key: str) -> Found | None:
        return self.root.look(self._full(key))

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        prefix = self.prefix
        wanted = list(keys)
        for key in wanted:
            check_key(key)
        length = len(prefix)
        found = self.root.get_many([prefix + key for key in wanted])
        self.hits += len(found)
        self.misses += len(wanted) - len(found)
        return {full[length:]: value for full, value in found.items()}

    def remaining(self, key: str) -> tuple[Presence, float]:
        return self.root.remaining(self._full(key))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.prefix + key in self.root

    def __len__(self) -> int:
        return sum(not key.startswith(SEPARATOR) for key in self.keys(""))

    def keys(self, prefix: str, *, stale: bool = False) -> Iterator[str]:
        own = self.prefix
        length = len(own)
        for full in self.root.keys(own + prefix, stale=stale):
            yield full[length:]

    def expired_size(self) -> int:
        return 0

    def records(self) -> list[Record]:
        own = self.prefix
        length = len(own)
        return [
            record._replace(key=record.key[length:])
            for record in self.root.records()
            if record.key.startswith(own)
        ]

    # Writing

    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> None:
        self.root.put(self._full(key), value, ttl, bounds)
        self.counters.sets += 1

    def put_many(self, values: Mapping[str, Any], ttl: float, bounds: Bounds) -> None:
        prefix = self.prefix
        self.root.put_many({prefix + key: value for key, value in values.items()}, ttl, bounds)
        self.counters.sets += len(values)

    def put_with(self, key: str, value: Any, life: Life, bounds: Bounds, token: object = None) -> bool:
        # The token knows the generation in which the load began.
        full, inner = self._full(key), None
        if token is not None:
            if not isinstance(token, _Token) or token.full != full:
                return False
            # Cleared since then, by another process? Then it is stored where nobody looks any more.
            inner = token.inner
        stored = self.root.put_with(full, value, life, bounds, inner)
        self.counters.sets += stored
        return stored

    def is_overtaken(self, key: str, token: object, tags: tuple[int, ...] = ()) -> bool:
        if not isinstance(token, _Token) or token.full != self._full(key):
            return True
        return self.root.is_overtaken(token.full, token.inner, tags)

    def begin_load(self, key: str) -> object:
        full = self._full(key)
        return _Token(full, self.root.begin_load(full))

    def overtake_loads(self, prefix: str) -> None:
        self.root.overtake_loads(self.prefix + prefix)

    def try_lease(self, key: str) -> Callable[[], None] | None:
        return self.root.try_lease(self._full(key))

    def put_off(self, key: str, seconds: float) -> None:
        self.root.put_off(self._full(key), seconds)

    def invalidate_tags(self, slots: Iterable[int]) -> None:
        self.root.invalidate_tags(slots)

    def generation(self, namespace: str) -> int:
        return self.root.generation(self._inner(namespace))

    def next_generation(self, namespace: str) -> int:
        return self.root.next_generation(self._inner(namespace))

    def generations(self) -> dict[str, int]:
        within = self._inner("")
        numbers = self.root.generations().items()
        return {name[len(within) :]: number for name, number in numbers if name.startswith(within)}

    def set_generations(self, numbers: Mapping[str, int]) -> None:
        within = self._inner("")
        known = self.root.generations()
        kept = {name: 0 if name.startswith(within) else number for name, number in known.items()}
        self.root.set_generations(kept | {within + name: number for name, number in numbers.items()})

    @property
    def generation_name(self) -> str:
        """What the store below all keyspaces calls the generation of this one; empty where it has none."""
        name, store = self._namespace, self.root
        while name and isinstance(store, KeyspaceStore):
            name, store = store._inner(name), store.root
        return name

    def _inner(self, namespace: str) -> str:
        return f"{self._namespace or self._prefix}{SEPARATOR}{namespace}"

    def add(self, key: str, value: Any, ttl: float, bounds: Bounds, life: Life | None = None) -> bool:
        done = self.root.add(self._full(key), value, ttl, bounds, life)
        self.counters.sets += done
        self.counters.failed_ops += not done
        return done

    def replace(self, key: str, value: Any, ttl: float, life: Life | None = None) -> Presence:
        presence = self.root.replace(self._full(key), value, ttl, life)
        self.counters.sets += presence is _LIVE
        self.counters.failed_ops += presence is not _LIVE
        return presence

    def remove(self, key: str) -> Presence:
        return self._removed(self.root.remove(self._full(key)))

    def _removed(self, presence: Presence) -> Presence:
        self.counters.manual_deletions += presence is _LIVE
        self.counters.failed_ops += presence is not _LIVE
        return presence

    def remove_many(self, keys: Iterable[str]) -> int:
        prefix = self.prefix
        count = self.root.remove_many([prefix + key for key in keys])
        self.counters.manual_deletions += count
        return count

    def pop(self, key: str) -> tuple[Presence, Any]:
        presence, value = self.root.pop(self._full(key))
        return self._removed(presence), value

    def touch(self, key: str, ttl: float) -> Presence:
        presence = self.root.touch(self._full(key), ttl)
        self.counters.failed_ops += presence is not _LIVE
        return presence

    def remove_if(self, key: str, text: str) -> bool:
        done = self.root.remove_if(self._full(key), text)
        self.counters.manual_deletions += done
        self.counters.failed_ops += not done
        return done

    def touch_if(self, key: str, text: str, ttl: float) -> bool:
        done = self.root.touch_if(self._full(key), text, ttl)
        self.counters.failed_ops += not done
        return done

    def incr(
        self,
        key: str,
        delta: Any,
        freeze: Callable[[Any], Any] | None,
        initial: Any,
        ttl: float,
        bounds: Bounds,
    ) -> tuple[Presence, Any]:
        presence, number = self.root.incr(self._full(key), delta, freeze, initial, ttl, bounds)
        self.counters.sets += number is not None
        self.counters.failed_ops += number is None
        return presence, number

    # All

    @property
    def lock(self) -> AbstractContextManager[Any]:
        return self.root.lock

    def set_capacity(self, capacity: int) -> None:
        self.root.widen(capacity)

    def widen(self, capacity: int) -> None:
        self.root.widen(capacity)

    def clear(self) -> int:
        if not self._namespace:
            return self.root.clear()
        self.root.next_generation(self._namespace)
        return 0

    def load(self, records: Iterable[Record], bounds: Bounds) -> None:
        """Replaces the entries of this keyspace; not at once, and without stale ones."""
        ready = [record for record in records if record.remaining > 0.0]
        if self._namespace:
            self.clear()
        else:
            self.remove_many(list(self.keys("")))
        for key, value, remaining, life in ready:
            if life is None:
                self.put(key, value, FOREVER if remaining == FOREVER else remaining, bounds)
                continue
            self.put_with(key, value, life, bounds)
            if remaining < life.ttl and not life.sliding:
                self.touch(key, remaining)

    def sweep(self) -> int:
        return self.root.sweep()

    def shrink(self, bounds: Bounds) -> None:
        self.root.shrink(bounds)

    def reset_counters(self) -> None:
        self.hits = self.misses = 0
        self.counters.reset(0)

    def subscribe(self, listener: RemovalListener) -> Callable[[], None]:
        def heard(full: str, cause: Any) -> None:
            own = self.prefix
            if full.startswith(own):
                listener(full[len(own) :], cause)

        return self.root.subscribe(heard)
