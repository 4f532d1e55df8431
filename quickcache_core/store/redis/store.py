"""Scope `redis`: one cache for many hosts."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from quickcache_core.clock import Clock
from quickcache_core.entry import FOREVER, MISSING
from quickcache_core.errors import StoreUnavailable, ValueTooLarge
from quickcache_core.events import RemovalCause
from quickcache_core.keys import check_key
from quickcache_core.metrics.counters import Counters
from quickcache_core.metrics.publisher import Publisher
from quickcache_core.store.base import Bounds, Presence, Record, RemovalListener, Store
from quickcache_core.store.codec import Codec
from quickcache_core.store.debts import Debts
from quickcache_core.store.forms import Forms
from quickcache_core.store.keyspace import namespaces_in
from quickcache_core.store.life import Found, Life
from quickcache_core.store.record import labelled
from quickcache_core.store.redis import record as form
from quickcache_core.store.redis.announcing import Announcing
from quickcache_core.store.redis.background import Background
from quickcache_core.store.redis.change import Change
from quickcache_core.store.redis.client import Client, Refused
from quickcache_core.store.redis.former import Former
from quickcache_core.store.redis.known import Known
from quickcache_core.store.redis.leases import Leases
from quickcache_core.store.redis.loads import Loads, Token
from quickcache_core.store.redis.names import Names, key_of, tail_of
from quickcache_core.store.redis.near import TrackedNear
from quickcache_core.store.redis.reading import Reading
from quickcache_core.store.redis.recovery import Recovery
from quickcache_core.store.redis.size import Size
from quickcache_core.store.redis.survey import Survey
from quickcache_core.store.redis.table import GRACE, LARGEST, Table
from quickcache_core.store.redis.untracked import Untracked

_LIVE, _EXPIRED, _GONE = Presence.LIVE, Presence.EXPIRED, Presence.ABSENT
_CAUSES = {
    _LIVE: RemovalCause.EXPLICIT,
    _EXPIRED: RemovalCause.EXPIRED,
    _GONE: RemovalCause.INVALIDATED,
}

P = ParamSpec("P")
R = TypeVar("R")


def _write(
    answer: Callable[Concatenate[RedisStore, P], R],
) -> Callable[[Callable[Concatenate[RedisStore, P], R]], Callable[Concatenate[RedisStore, P], R]]:
    """What surrounds a method that writes. `answer` says what it returns where it couldn't be carried out,
    and notes what has to be made up for: whether a command whose reply didn't come was carried out isn't
    known.
    """

    def decorate(
        method: Callable[Concatenate[RedisStore, P], R],
    ) -> Callable[Concatenate[RedisStore, P], R]:
        def run(self: RedisStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
            try:
                if self._debts.exist:
                    self._recovery.settle(_keys_in(args))
                result = method(self, *args, **kwargs)
            except StoreUnavailable as error:
                self._in_trouble(error)
                result = answer(self, *args, **kwargs)
                if error.__class__ is Refused:
                    # The server is there: others needn't see what is outdated until the next time.
                    self._recovery.settle_if_possible()
            self.background.attend()
            return result

        functools.update_wrapper(run, method)
        return run

    return decorate


class RedisStore(Store):
    """Entries on a Redis or Valkey server, with a near store in front.

    What others change is heard of within about a millisecond and the way through the network, at worst
    after a second. What this process writes it reads from then on. Each operation on one key is one
    command, atomic on the server.

    Bounds don't count here: it is the server that evicts, by its own `maxmemory` and policy. It also lets
    expired entries go by itself. `clear` begins a new generation, and what former ones left is removed in the
    background; how many there were isn't known.

    While the server is away (`degrade`), reads are misses, stale values that are near aside, and nothing is
    stored; keys that were written or deleted meanwhile are removed when it is back, so that no outdated value
    returns. With `degrade=False` operations raise `StoreUnavailable` instead.

    Listeners hear of entries that this process removes, one by one.
    """

    def __init__(
        self,
        client: Client,
        prefix: str,
        codec: Codec,
        clock: Clock,
        near_size: int,
        *,
        degrade: bool = True,
        grace: float = GRACE,
    ) -> None:
        """`grace`: seconds that the server keeps entries beyond their end, at least."""
        self.client = client
        self.names = Names(prefix)
        self.counters = Counters()
        self.lock = threading.RLock()
        self.capacity = 0
        """For the figures: the largest bound, in entries, of the caches that use it in this process."""
        self.publisher: Publisher | None = None
        """Shows the figures of the store to other processes."""
        self._codec = codec
        self._degrade = degrade
        self._listeners: tuple[RemovalListener, ...] = ()
        self._asked_for: set[str] = set()
        self._near = near = self._make_near(clock, near_size)
        self.known = known = Known(client, self.names, near)
        self.table = table = Table(client, self.names, near, known, grace=grace)
        self._debts = Debts(near, self._forget, known.next_generation)
        self._survey = Survey(table)
        self._change = Change(table, codec, self._survey)
        self._loads = Loads(table, near, self._debts)
        self.leases = Leases(client, lambda: self.background.has_thread())
        self._recovery = Recovery(self._debts, table)
        former = Former(client, self.names, self.counters)
        known.moved = former.hurry
        self.size = Size(client, self.names, known)
        self.announcing = Announcing(client, self.names)
        self.background = Background(
            near, known, self.leases, self._recovery, former, self.size, self.announcing
        )
        forms = Forms(codec, near, self.counters, f"cache on {client.address}")
        attend = self.background.attend
        self._reading = Reading(
            table, near, codec, forms, self._debts, self._in_trouble, attend, clock.monotonic
        )

    def _make_near(self, clock: Clock, size: int) -> TrackedNear | Untracked:
        def behind(key: Any, default: Any) -> Any:
            return self._reading.get_behind(key, default)

        def closer(key: str, entry: Any, default: Any) -> Any:
            return self._reading.closer(key, entry, default)

        if not size:
            return Untracked(clock.monotonic, behind, closer)
        names = self.names
        return TrackedNear(
            self.client, names.tracked, names.generation, clock.monotonic, size, behind, closer
        )

    @property
    def freeze(self) -> Callable[[Any], Any]:
        """What turns a value into its stored form. Raises `SerializationError`."""
        return self._codec.freeze

    # Reading

    @property
    def get(self) -> Callable[..., Any]:
        return self._near.get

    @property
    def at_hand(self) -> Callable[[str], Any]:
        return self._near.at_hand

    @property
    def hits(self) -> int:
        return self._near.hits

    @property
    def misses(self) -> int:
        return self._near.misses

    def count(self, *, hit: bool) -> None:
        if hit:
            self._near.hits += 1
        else:
            self._near.misses += 1

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        return self._reading.get_many(keys)

    def look(self, key: str) -> Found | None:
        return self._reading.look(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._reading.find(key)[0] is _LIVE

    def remaining(self, key: str) -> tuple[Presence, float]:
        return self._reading.remaining(key)

    # Looking at all

    def __len__(self) -> int:
        return self._answer_or(0, self._survey.count)

    def used_bytes(self) -> int | None:
        """Nobody weighs entries here."""
        return None

    def expired_size(self) -> int:
        return self._answer_or(0, lambda: sum(map(len, self._survey.expired())))

    def keys(self, prefix: str, *, stale: bool = False) -> Iterator[str]:
        try:
            for tails in self.table.scan(tail_of(prefix)) if stale else self._survey.live(prefix):
                yield from map(key_of, tails)
        except StoreUnavailable as error:
            self._in_trouble(error)

    def records(self) -> list[Record]:
        """Stale ones, too."""
        records = []
        for some in self._survey.whole():
            now = self.client.now()
            for tail, stored in some:
                key, record, extras = key_of(tail), stored.record, stored.extras
                decoded = form.decoded(self._codec, tail, key, stored)
                if decoded is None:
                    self._reading.forms.unreadable(self._codec.reason(record))
                    continue
                value, deadline = decoded
                if deadline <= now:
                    continue
                until = deadline if extras is None else extras.fresh_until
                remaining = FOREVER if until == FOREVER else until - now
                records.append(Record(key, value, remaining, None if extras is None else extras.life(now)))
        return records

    # Writing

    def _unstored(self, key: str, *_: Any) -> None:
        """A value couldn't be stored: an older one must not be taken for it."""
        self._owe((key,))

    @_write(_unstored)
    def put(self, key: str, value: Any, ttl: float, bounds: Bounds) -> None:
        tail, record, px = self._encoded(key, value, ttl)
        self.table.put(tail, record, px)
        self.counters.sets += 1

    def _unstored_with(self, key: str, value: Any, life: Life, bounds: Bounds, token: object = None) -> bool:
        # What was computed from the source doesn't make an older value wrong.
        if token is None:
            self._owe((key,))
        return False

    @_write(_unstored_with)
    def put_with(self, key: str, value: Any, life: Life, bounds: Bounds, token: object = None) -> bool:
        if token is None:
            tail, record, px = self._encoded(key, value, life.ttl, life)
            self.table.put(tail, record, px)
        else:
            tail, record, px = self._encoded(key, value, life.ttl, life, born=0)
            if not self._loads.put(key, _token(token), record, px, life.tags):
                return False
        self.counters.sets += 1
        return True

    def put_many(self, values: Mapping[str, Any], ttl: float, bounds: Bounds) -> None:
        self._put_all(list(values), values, ttl)

    @_write(lambda self, keys, values, ttl: self._owe(keys))
    def _put_all(self, keys: list[str], values: Mapping[str, Any], ttl: float) -> int:
        encoded = []
        too_large = None
        for key in keys:
            try:
                encoded.append(self._encoded(key, values[key], ttl))
            except ValueTooLarge as error:
                too_large = error
        self.table.put_many({tail: (record, px) for tail, record, px in encoded})
        self.counters.sets += len(encoded)
        if too_large is not None:
            raise too_large
        return 0

    def _added(self, key: str, value: Any, ttl: float, bounds: Bounds, life: Life | None = None) -> bool:
        """As a cache does that is empty, and forgets at once."""
        self._owe((key,))
        return True

    @_write(_added)
    def add(self, key: str, value: Any, ttl: float, bounds: Bounds, life: Life | None = None) -> bool:
        tail, record, px = self._encoded(key, value, ttl if life is None else life.ttl, life)
        state = self._change.put_where(tail, record, px, live=False)
        return self._counted(state is not _LIVE)

    @_write(lambda self, key, value, ttl, life=None: self._missing(key))
    def replace(self, key: str, value: Any, ttl: float, life: Life | None = None) -> Presence:
        tail, record, px = self._encoded(key, value, ttl if life is None else life.ttl, life)
        state = self._change.put_where(tail, record, px, live=True)
        self._counted(state is _LIVE)
        return state

    @_write(lambda self, key: self._missing(key))
    def remove(self, key: str) -> Presence:
        check_key(key)
        state, was_there = self._change.remove(tail_of(key))
        self._removed(key, state, was_there)
        self.counters.failed_ops += state is not _LIVE
        return state

    @_write(lambda self, key: (self._missing(key), None))
    def pop(self, key: str) -> tuple[Presence, Any]:
        check_key(key)
        state, stored, value = self._change.pop(tail_of(key), key)
        if stored is not None and value is MISSING:
            self._reading.forms.unreadable(self._codec.reason(stored.record))
        self._removed(key, state, stored is not None)
        self.counters.failed_ops += state is not _LIVE
        if value is MISSING:
            return (_GONE if state is _LIVE else state), None
        return state, value if state is _LIVE else None

    def remove_many(self, keys: Iterable[str]) -> int:
        count: int = self._remove_all(list(keys))
        return count

    @_write(lambda self, keys: self._owe(keys))
    def _remove_all(self, keys: list[str]) -> int:
        for key in keys:
            check_key(key)
        states = self._change.remove_many([tail_of(key) for key in keys])
        for key, (state, was_there) in zip(keys, states, strict=True):
            self._removed(key, state, was_there)
        return sum(state is _LIVE for state, _ in states)

    @_write(lambda self, key, ttl: self._missing(key))
    def touch(self, key: str, ttl: float) -> Presence:
        check_key(key)
        state = self._change.touch(tail_of(key), ttl)
        self.counters.failed_ops += state is not _LIVE
        return state

    @_write(lambda self, key, text: self._missing(key) is _LIVE)
    def remove_if(self, key: str, text: str) -> bool:
        check_key(key)
        done = self._change.remove_if(tail_of(key), key, text)
        if done:
            self._removed(key, _LIVE, True)
        self.counters.failed_ops += not done
        return done

    @_write(lambda self, key, text, ttl: self._missing(key) is _LIVE)
    def touch_if(self, key: str, text: str, ttl: float) -> bool:
        check_key(key)
        done = self._change.touch_if(tail_of(key), key, text, ttl)
        self.counters.failed_ops += not done
        return done

    @_write(lambda self, key, seconds: None)
    def put_off(self, key: str, seconds: float) -> None:
        check_key(key)
        self._change.put_off(tail_of(key), seconds)

    def _unadded(
        self, key: str, delta: Any, freeze: Any, initial: Any, ttl: float, bounds: Bounds
    ) -> tuple[Presence, Any]:
        return self._missing(key), None if initial is MISSING else initial + delta

    @_write(_unadded)
    def incr(
        self,
        key: str,
        delta: Any,
        freeze: Callable[[Any], Any] | None,
        initial: Any,
        ttl: float,
        bounds: Bounds,
    ) -> tuple[Presence, Any]:
        check_key(key)
        state, number = self._change.increase(key, delta, initial, ttl)
        self._counted(number is not None)
        return state, number

    # Loads

    def begin_load(self, key: str) -> object:
        check_key(key)
        try:
            token = self._loads.begin(key)
        except StoreUnavailable as error:
            self._in_trouble(error)
            token = self._loads.begin_without_server(key)
        return token

    def is_overtaken(self, key: str, token: object, tags: tuple[int, ...] = ()) -> bool:
        return self._loads.is_overtaken(key, _token(token), tags)

    def overtake_loads(self, prefix: str) -> None:
        """Looks at all names of the database, and sends a command for each key that begins so."""
        self._overtake(prefix=prefix)

    # A keyword, for it is no key that debts are looked up by.
    @_write(lambda self, *, prefix: self._cannot_overtake())
    def _overtake(self, *, prefix: str) -> None:
        self._loads.overtake(prefix)

    def _cannot_overtake(self) -> None:
        # Nor can the entries be listed that are to be removed, so all of them leave.
        self._owe(None)

    def try_lease(self, key: str) -> Callable[[], None] | None:
        check_key(key)
        try:
            generation, _ = self.known.generation(self._near.label())
        except StoreUnavailable:
            return _nothing  # a load too many is better than none
        self.background.attend()
        return self.leases.take(self.names.lease(generation, tail_of(key)))

    # Tags and generations

    @_write(lambda self, slots: self._cannot_invalidate())
    def invalidate_tags(self, slots: Iterable[int]) -> None:
        tags = list(slots)
        if tags:
            self.known.invalidate(tags)

    def _cannot_invalidate(self) -> None:
        # Nobody knows which entries have the tags, so all of them leave.
        self._owe(None)

    def generation(self, namespace: str) -> int:
        self._asked_for.add(namespace)
        # Not only by the get that follows: its key would be of the generation from before.
        self._near.catch_up()
        try:
            return self.known.number(namespace)
        except StoreUnavailable as error:
            self._in_trouble(error)
            return self.known.last_number(namespace)

    def _no_generation(self, namespace: str) -> int:
        # All that was stored in this one leaves.
        self._owe(None)
        return self.known.last_number(namespace)

    @_write(_no_generation)
    def next_generation(self, namespace: str) -> int:
        self._asked_for.add(namespace)
        return self.known.next_number(namespace)

    def generations(self) -> dict[str, int]:
        return {name: self.generation(name) for name in list(self._asked_for)}

    @_write(lambda self, numbers: None)
    def set_generations(self, numbers: Mapping[str, int]) -> None:
        self.known.set_numbers({**dict.fromkeys(list(self._asked_for), 0), **numbers})

    # The whole store

    @_write(lambda self: self._owe(None))
    def clear(self) -> int:
        self.known.next_generation()
        return 0

    def load(self, records: Iterable[Record], bounds: Bounds) -> None:
        """Not at once: others see the store empty, and then grow."""
        self._fill(list(records))

    @_write(lambda self, records: self._owe(None))
    def _fill(self, records: list[Record]) -> int:
        # What can't be stored is found before anything has changed.
        for one in records:
            self._codec.encode(tail_of(one.key), one.key, one.value, FOREVER)
            self._asked_for.update(namespaces_in(one.key))
        self.known.next_generation()
        # Of all tags at once.
        tags = {tag for record in records if record.life is not None for tag in record.life.tags}
        born = 0
        if tags:
            numbers, born = self.known.introduce(tags)
            born = max(born, *numbers.values())
        data: dict[bytes, tuple[bytes, int | None]] = {}
        for one in records:
            tail, record, px = self._encoded(one.key, one.value, one.remaining, one.life, born=born)
            has_tags = one.life is not None and one.life.tags
            data[tail] = (labelled(record, born) if has_tags else record), px
        self.table.put_many(data)
        self.counters.sets += len(records)
        return 0

    def sweep(self) -> int:
        """Looks at each entry, for the server lets them go by itself when nobody needs them any more."""
        return self._answer_or(0, self._sweep)

    def _sweep(self) -> int:
        count = 0
        for some in self._survey.expired():
            left = self.table.wither([one.tail for one in some], self.client.now())
            count += len(left)
            for tail in left:
                self._tell(key_of(tail), RemovalCause.EXPIRED)
        self.counters.expired_removals += count
        return count

    def shrink(self, bounds: Bounds) -> None:
        """The server does that."""

    def set_capacity(self, capacity: int) -> None:
        """For the figures only."""
        self.capacity = capacity

    def widen(self, capacity: int) -> None:
        self.capacity = max(capacity, self.capacity)

    def reset_counters(self) -> None:
        """Of this process."""
        with self.lock:
            self._near.hits = self._near.misses = 0
            self.counters.reset(0)
            if self.publisher is not None:
                self.publisher.count_from_zero()

    def subscribe(self, listener: RemovalListener) -> Callable[[], None]:
        subscribed = functools.partial(listener)
        with self.lock:
            self._listeners = (*self._listeners, subscribed)

        def unsubscribe() -> None:
            with self.lock:
                self._listeners = tuple(one for one in self._listeners if one is not subscribed)

        return unsubscribe

    def close(self) -> None:
        """End the background work, and let go of the connections. A later use makes new ones."""
        self.background.stop()
        self._near.close()
        self.client.close()

    # Shared by the above

    def _encoded(
        self, key: str, value: Any, ttl: float, life: Life | None = None, born: int | None = None
    ) -> tuple[bytes, bytes, int | None]:
        """What stands behind the generation in its name, its record, and how long the server keeps it."""
        encoded = self._change.encoded(key, value, ttl, life, born)
        if len(encoded[1]) > LARGEST:
            # Not to be taken for the new one.
            self.table.forget([encoded[0]])
            raise ValueTooLarge(key, len(encoded[1]), LARGEST)
        return encoded

    def _counted(self, stored: bool) -> bool:
        self.counters.sets += stored
        self.counters.failed_ops += not stored
        return stored

    def _removed(self, key: str, state: Presence, was_there: bool) -> None:
        if not was_there:
            return
        self.counters.manual_deletions += state is _LIVE
        self.counters.expired_removals += state is _EXPIRED
        if self._listeners:
            self._tell(key, _CAUSES[state])

    def _tell(self, key: str, cause: RemovalCause) -> None:
        for listener in self._listeners:
            listener(key, cause)

    # Trouble

    def _in_trouble(self, error: StoreUnavailable) -> None:
        self.counters.store_errors += 1
        if not self._degrade:
            raise error

    def _answer_or(self, otherwise: R, ask: Callable[[], R]) -> R:
        try:
            return ask()
        except StoreUnavailable as error:
            self._in_trouble(error)
            return otherwise

    def _missing(self, key: str) -> Presence:
        self._owe((key,))
        return _GONE

    def _owe(self, keys: Iterable[str] | None) -> int:
        """Note what has to leave as soon as the server answers; None for all. Returns 0."""
        self._debts.add(keys)
        return 0

    def _forget(self, keys: list[str]) -> None:
        self.table.forget([tail_of(key) for key in keys])


def _keys_in(arguments: tuple[Any, ...]) -> Iterable[str]:
    """The keys that a method is given: they, or the one, come first."""
    first = arguments[0] if arguments else ()
    if isinstance(first, str):
        return (first,)
    return [key for key in first if isinstance(key, str)] if isinstance(first, list) else ()


def _token(token: object) -> Token:
    assert isinstance(token, Token), "a token comes from begin_load"  # noqa: S101
    return token


def _nothing() -> None:
    pass
