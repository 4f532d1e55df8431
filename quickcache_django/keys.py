"""Keys and tags as Django's settings and Django's functions make them, on their way to the engine."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from django.core.cache.backends.base import MEMCACHE_MAX_KEY_LENGTH, BaseCache, default_key_func
from django.core.exceptions import ImproperlyConfigured

from quickcache_core import QuickCache as Engine
from quickcache_django.conf import Settings, engine_ttl

_LONGEST_KEY = MEMCACHE_MAX_KEY_LENGTH
_SHAPE_KEYS = {"key_func", "key_prefix", "version", "make_key", "validate_key", "make_and_validate_key"}
_AFTER_PREFIX = "\x1f"
"""Between a KEY_PREFIX and a tag: a character that neither has."""
_MARK = "\x1fkey\x1f"
"""Stands for a key, to see what is put before it."""
_WATCHED = _SHAPE_KEYS | {"default_timeout", "_max_entries"}


class Keyed(BaseCache):
    """One of Django's caches that knows what the engine calls its keys and tags, also when somebody changes
    what they are made of.
    """

    _cache: Engine
    _settings: Settings
    _default_ttl: Any
    _head: str | None
    """What stands before a key in the engine; None when that takes Django's own, slower way to find out."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _WATCHED:
            self._changed(name)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._changed(name)

    def _changed(self, name: str) -> None:
        # Tests and tools change these on a living object. To ask for them on each hit would double its time.
        if "_settings" not in self.__dict__:
            return
        if name in _SHAPE_KEYS:
            self._shape_keys()
        elif name == "default_timeout":
            self._default_ttl = engine_ttl(self.default_timeout)
        elif name == "_max_entries":
            self._settings = self._settings.with_bounds(max_size=max(1, int(self._max_entries)))
            self._cache = self._settings.engine

    def _shape_keys(self) -> None:
        cls, own = type(self), self.__dict__
        plain = (
            self.key_func is default_key_func
            and cls.make_key is BaseCache.make_key
            and cls.validate_key is BaseCache.validate_key
            and cls.make_and_validate_key is BaseCache.make_and_validate_key
            and not ("make_key" in own or "validate_key" in own or "make_and_validate_key" in own)
        )
        self._head = default_key_func("", self.key_prefix, self.version) if plain else None

    def _key(self, key: Any, version: int | None) -> str:
        head = self._head
        # No subclasses of str: the key function formats with "%s", where an enum's member gives its name.
        if version is None and head is not None and key.__class__ is str:
            full = head + key
            # What Django would warn about: no character that it minds but the space is printable.
            if len(full) > _LONGEST_KEY or " " in full or not full.isprintable():
                self.validate_key(full)
            return full
        return self.make_and_validate_key(key, version)

    def _keys(self, keys: Collection[Any], version: int | None) -> list[str]:
        head = self._head
        if version is None and head is not None:
            full = [head + key for key in keys if key.__class__ is str]
            text = "".join(full)
            if (
                len(full) == len(keys)
                and (len(text) <= _LONGEST_KEY or max(map(len, full)) <= _LONGEST_KEY)
                and " " not in text
                and text.isprintable()
            ):
                return full
        return [self.make_and_validate_key(key, version) for key in keys]

    def make_tag(self, tag: str) -> str:
        """How the engine calls a tag: aliases of one LOCATION have those of their KEY_PREFIX, which all
        versions share.
        """
        return f"{self.key_prefix}{_AFTER_PREFIX}{tag}" if self.key_prefix else tag

    def _tags(self, tags: Any) -> Any:
        # What is no list of strings is for the engine to complain about.
        if not self.key_prefix or isinstance(tags, str) or not isinstance(tags, Iterable):
            return tags
        return [self.make_tag(tag) if isinstance(tag, str) else tag for tag in tags]

    def stored_prefix(self, prefix: str | None) -> str:
        """How the stored keys begin of those keys that begin with `prefix`; all of the store for None."""
        return "" if prefix is None else f"{self._head or ''}{prefix}"

    def _before_keys(self, version: int | None) -> str:
        """What stands before each key in the engine."""
        if version is None and self._head is not None:
            return self._head
        marked: str = self.make_key(_MARK, version)
        if not marked.endswith(_MARK):
            raise ImproperlyConfigured(
                "KEY_FUNCTION doesn't leave keys as they are at the end of what it makes, so they can't be "
                "told from it; find entries by tags instead"
            )
        return marked.removesuffix(_MARK)
