"""In which form values are kept near that were read from where other processes write."""

from __future__ import annotations

import logging
from typing import Any

from quickcache_core.errors import SerializationError
from quickcache_core.metrics.counters import Counters
from quickcache_core.serializer.isolation import Frozen, thaw
from quickcache_core.store.codec import Codec
from quickcache_core.store.near import NearEntry, NearStore

logger = logging.getLogger(__name__)


class Forms:
    """Of one near store: a value is deserialized once, when it is first read.

    `place` is where the entries are, in words that end a sentence.
    """

    def __init__(self, codec: Codec, near: NearStore, counters: Counters, place: str) -> None:
        self._codec = codec
        self._near = near
        self._counters = counters
        self._place = place
        self._complained = False

    def near_form(self, key: str, stored: Any) -> Any:
        return Frozen(self._first_read, (key, stored.data)) if self._codec.holds(stored) else stored

    def is_unread(self, stored: Any) -> bool:
        return stored.__class__ is Frozen and stored.load == self._first_read

    def read(self, stored: Any) -> tuple[Any, Any]:
        """The value of what is unread, and the form for further reads. Raises `SerializationError`."""
        value, form = self._codec.settle(stored.data[1])
        return value if form.__class__ is not Frozen or self._codec.holds(form) else thaw(form), form

    def _first_read(self, packed: tuple[str, Any]) -> Any:
        """Load a value, and keep it in a form that is cheaper to read."""
        key, data = packed
        value, form = self._codec.settle(data)
        entry = self._near.young.get(key)
        if entry is not None and entry.value.__class__ is Frozen and entry.value.data is packed:
            entry.value = form
        return value if form.__class__ is not Frozen or self._codec.holds(form) else thaw(form)

    def is_readable(self, key: str, entry: NearEntry) -> bool:
        """Whether there is a value in an entry that may be unread; it is in the form for further reads then.
        One that can't be read is noted, and isn't near any more.
        """
        if not self.is_unread(entry.value):
            return True
        try:
            entry.value = self.read(entry.value)[1]
        except SerializationError as error:
            self.unreadable(str(error.__cause__ or error))
            self._near.drop(key)
            return False
        return True

    def unreadable(self, reason: str) -> None:
        """Note that a record is of no use."""
        self._counters.store_errors += 1
        if not self._complained:
            self._complained = True
            logger.warning(
                "An entry of the %s %s; such entries are misses, and are not reported again",
                self._place,
                reason,
            )
