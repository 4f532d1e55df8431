"""Who leaves when the cache is full: the contract between the memory store and its policy."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, cast

from quickcache_core.entry import Entry
from quickcache_core.registry import eviction_policies

logger = logging.getLogger(__name__)

Recency = Literal["counter", "order", "hook"]


class EvictionPolicy(ABC):
    """A policy at the level of entries. The built-in ones are of this kind.

    The store calls every method under its write lock, with entries that are in the table at that moment; a
    policy never touches the table, and keeps no entry after `remove` or `evict` (a queue may let go of it
    lazily: the entry's deadline is `GONE` from then on). When the cache is cleared or loaded, a new policy is
    made for the new entries.

    Every operation takes amortised constant time, at any number of entries; with `gdsf`, time by their
    logarithm.
    """

    recency: ClassVar[Recency] = "counter"
    """How the policy learns of hits. `counter`: the hit path bumps `entry.frequency` up to 3 and calls
    nobody, the fastest. `order`: the table is an `OrderedDict` and a hit moves the key to its end. `hook`:
    each hit calls `access` under the lock.
    """

    ordered_table: ClassVar[bool] = False
    """Whether the policy needs the table to be an `OrderedDict`."""

    needs_weights: ClassVar[bool] = False
    """Whether the policy goes by `entry.weight`, in bytes, which only the entries of a store with a bound in
    bytes have. A cache without `max_bytes` doesn't take such a policy.
    """

    evict_lets_go: ClassVar[bool] = True
    """Whether `evict` takes the entry out of the policy's books. Otherwise `remove` is called for it next."""

    def attach(self, entries: Mapping[str, Entry], capacity: int) -> None:
        """Called once before anything else, with the live table, empty by then, and the bound in entries."""

    @abstractmethod
    def insert(self, entry: Entry) -> None:
        """A new key is in the table."""

    def update(self, entry: Entry) -> None:
        """A live key got a new value.

        By default nothing happens: a write is no sign that somebody will read.
        """

    def reweigh(self, entry: Entry) -> None:
        """The new value of a live key has another weight, which the entry has by now; follows `update`.

        By default nothing happens.
        """

    def access(self, entry: Entry) -> None:
        """A hit; only called with `recency = "hook"`."""

    @abstractmethod
    def remove(self, entry: Entry) -> None:
        """The entry left for a reason other than `evict`. Its deadline is `GONE` already."""

    def exchange(self, old: Entry, new: Entry) -> None:
        """Another object, with the same key and the same uses, took the place of a live entry, whose deadline
        is `GONE`. `update` follows.

        By default the new one takes the place of a newcomer.
        """
        self.remove(old)
        self.insert(new)

    @abstractmethod
    def evict(self) -> Entry:
        """The entry that leaves; see `evict_lets_go`. Only called while the table holds at least one."""

    def resize(self, capacity: int) -> None:
        """The bound in entries is now `capacity`. The store evicts what is over it by itself."""


class BaseEvictionPolicy(EvictionPolicy):
    """Base class for your own policies, with the hooks of PyQuickCache 0.1.0.

    Only `select_eviction_key` is required. Every hook gets the table, an `OrderedDict` of key to entry in
    order of insertion (a hook may reorder it with `move_to_end`, but must not add or remove), and runs under
    the write lock of the cache: keep it short, and don't call the cache from it. A policy that doesn't
    override `on_access` makes hits no slower.
    """

    ordered_table = True
    evict_lets_go = False
    _entries: OrderedDict[str, Entry]
    _has_failed = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.recency = "counter" if cls.on_access is BaseEvictionPolicy.on_access else "hook"

    def on_add(self, cache: OrderedDict[str, Entry], key: str) -> None:
        """A new key has been inserted."""

    def on_update(self, cache: OrderedDict[str, Entry], key: str) -> None:
        """A live key got a new value."""

    def on_access(self, cache: OrderedDict[str, Entry], key: str) -> None:
        """A hit."""

    def on_delete(self, cache: OrderedDict[str, Entry], key: str) -> None:
        """The key has left the table, for whatever reason.

        When the cache is cleared or loaded as a whole, a new instance of the policy is made instead.
        """

    @abstractmethod
    def select_eviction_key(self, cache: OrderedDict[str, Entry]) -> str:
        """The key that leaves.

        If it isn't in `cache`, or the method raises, that is logged and the oldest key leaves instead.
        """

    def attach(self, entries: Mapping[str, Entry], capacity: int) -> None:
        self._entries = cast("OrderedDict[str, Entry]", entries)

    def insert(self, entry: Entry) -> None:
        self._call(self.on_add, entry)

    def update(self, entry: Entry) -> None:
        self._call(self.on_update, entry)

    def access(self, entry: Entry) -> None:
        self._call(self.on_access, entry)

    def remove(self, entry: Entry) -> None:
        self._call(self.on_delete, entry)

    def exchange(self, old: Entry, new: Entry) -> None:
        pass  # hooks know keys only

    def evict(self) -> Entry:
        entries = self._entries
        try:
            return entries[self.select_eviction_key(entries)]
        except Exception as error:
            self._report("select_eviction_key gave no key of the cache", error)
            return next(iter(entries.values()))

    def _call(self, hook: Callable[[OrderedDict[str, Entry], str], None], entry: Entry) -> None:
        try:
            hook(self._entries, entry.key)
        except Exception as error:
            self._report(f"{hook.__name__} failed", error)

    def _report(self, what: str, error: Exception) -> None:
        # A wrong policy must not fail the user's write, nor let the cache grow, nor flood the log. The type
        # only: messages and tracebacks may show keys, which have no place above DEBUG.
        if not self._has_failed:
            self._has_failed = True
            name, kind = type(self).__name__, type(error).__name__
            logger.error("%s.%s (%s); the cache goes on, more at DEBUG", name, what, kind)
        logger.debug("How the policy failed", exc_info=error)


eviction_policies.accepts(EvictionPolicy)
