"""The cache's side of writes to a source: what is visible in it when."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from quickcache_core.errors import QuickCacheError, ValueTooLarge
from quickcache_core.keys import check_key
from quickcache_core.loading.context import LoaderContext
from quickcache_core.loading.load import Destination
from quickcache_core.loading.options import LoadOptions, check_names
from quickcache_core.serializer.isolation import thaw
from quickcache_core.sources.base import key_list
from quickcache_core.ttl import TTL

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache

logger = logging.getLogger(__name__)

NO_ROW: Final = "\0quickcache: no such row\0"
"""Cached instead of a value that the source doesn't have. Text, which every serializer takes."""


def is_no_row(value: Any) -> bool:
    return value.__class__ is str and value == NO_ROW


class Entries:
    """Stores what was written to the source, or loaded from it, unless it was overtaken meanwhile.

    Two writers may reach the source in one order and the cache in the other one; so each takes a token before
    it goes to the source, and the store refuses its value if somebody else was at the key since. Then the key
    is deleted, and the next reader asks the source. It works over threads and processes alike, and without a
    lock.
    """

    def __init__(self, cache: QuickCache, ttl_sec: TTL | None, arguments: Mapping[str, Any]) -> None:
        check_names(arguments)
        self._cache = cache
        # As the cache is configured when this is made; a configuration doesn't change.
        self._usual = cache._load_options.changed(ttl_sec, dict(arguments))

    def _options(self, ttl_sec: TTL | None) -> LoadOptions:
        return self._usual if ttl_sec is None else self._usual.changed(ttl_sec, {})

    @property
    def _to(self) -> Destination:
        # Another one after a resize, or while the cache is switched off.
        return self._cache._filler._to

    @contextmanager
    def writing(
        self, values: Mapping[str, Any], ttl_sec: TTL | None, *, keep: bool
    ) -> Iterator[dict[str, Any]]:
        """Around a write to the source; gives the stored forms. If the write fails, in whatever way, the keys
        are deleted, since nobody knows whether the source took it.

        `keep`: whether the values are cached then; else the keys are deleted.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"data={values!r}: give a mapping of keys to values")
        to, options = self._to, self._options(ttl_sec)
        for key in values:
            check_key(key)
        stored = {key: to.freeze(key, value) for key, value in values.items()}
        tokens = {key: to.store.begin_load(key) for key in stored}
        try:
            yield stored
        except BaseException:
            self._give_up(list(stored))
            raise
        refused = [
            key
            for key, value in stored.items()
            if not (keep and self._put(to, key, value, options, tokens[key]))
        ]
        self.forget(refused)

    @contextmanager
    def removing(self, keys: Iterable[str]) -> Iterator[list[str]]:
        """Around a removal from the source."""
        keys = key_list(keys)
        try:
            yield keys
        except BaseException:
            self._give_up(keys)
            raise
        self.forget(keys)

    def begin(self, keys: Iterable[str]) -> dict[str, object]:
        """Tokens, before the source is asked for those keys."""
        store = self._to.store
        return {key: store.begin_load(key) for key in keys}

    def fill(self, tokens: Mapping[str, object], values: Mapping[str, Any], missing_ttl: TTL | None) -> None:
        """Store what the source gave for the keys of the tokens."""
        to, options = self._to, self._options(None)
        absent = None
        if missing_ttl is not None:
            absent = options.changed(missing_ttl, {"stale_ttl": 0, "sliding": False})
        for key, token in tokens.items():
            if key in values:
                if values[key] is not None or not options.skip_none:
                    self._put(to, key, to.freeze(key, values[key]), options, token)
            elif absent is not None:
                self._put(to, key, to.freeze(key, NO_ROW), absent, token)

    def stale(self, keys: Iterable[str]) -> dict[str, Any]:
        """Values whose TTL has ended, and that are still kept."""
        store = self._to.store
        found = {key: store.look(key) for key in keys}
        return {key: thaw(one.stored) for key, one in found.items() if one is not None}

    def forget(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        if keys:
            self._to.store.remove_many(keys)

    def _give_up(self, keys: list[str]) -> None:
        try:
            self.forget(keys)
        except QuickCacheError as error:
            logger.debug("Nor could the entries be removed", exc_info=error)

    def _put(self, to: Destination, key: str, stored: Any, options: LoadOptions, token: object) -> bool:
        life = to.life(LoaderContext(key, options, None), options)
        try:
            done = to.store.put_with(key, stored, life, to.bounds, token)
        except ValueTooLarge:
            return False  # the source has it
        if done:
            to.stored(key)
        return done
