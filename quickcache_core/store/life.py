"""How long an entry lives beyond a plain TTL, and what a look at such an entry finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

from quickcache_core.entry import FOREVER

TAG_SLOTS: Final = 262_144
"""Tags that hash to one slot are invalidated together: some entries then leave too early, none too late."""


@dataclass(frozen=True, slots=True)
class Life:
    """What an entry gets when it is stored. All durations are seconds above 0, `FOREVER` for no end."""

    ttl: float
    """The entry is fresh for so long."""
    stale_ttl: float = 0.0
    """It is kept for so long after that, for those who ask for stale ones; 0 is allowed. To all others it has
    expired.
    """
    sliding: bool = False
    """Whether each read lets `ttl` begin anew."""
    max_age: float = FOREVER
    """With `sliding`: it is fresh for so long at most, however often it is read."""
    refresh_after: float = FOREVER
    """After so long, readers who ask are told that it is due for a refresh, fresh as it is."""
    tags: tuple[int, ...] = ()
    """Slots of its tags, see `tag_slot`: once one is invalidated, the entry is as good as deleted."""
    etag: str | None = None
    """What the source called this version of the value."""

    @property
    def is_plain(self) -> bool:
        """Whether the entry has nothing but a TTL."""
        if self.stale_ttl or self.sliding or self.tags or self.etag:
            return False
        return self.refresh_after == FOREVER


class Found:
    """What `Store.get` answers to `ASK` where the value alone doesn't tell all."""

    __slots__ = ("etag", "is_due", "is_fresh", "stored")

    stored: Any
    """The value in its stored form."""
    is_fresh: bool
    """False: its TTL has ended, its `stale_ttl` hasn't."""
    is_due: bool
    """Whether it should be loaded again: it is stale, or past `refresh_after`, and nobody put that off."""
    etag: str | None

    def __init__(self, stored: Any, is_fresh: bool, is_due: bool, etag: str | None) -> None:
        self.stored = stored
        self.is_fresh = is_fresh
        self.is_due = is_due
        self.etag = etag


class Ask:
    """The type of `ASK`."""

    def __repr__(self) -> str:
        return "ASK"


ASK: Final = Ask()
"""As the default of `Store.get`: a caller who also wants to know of stale entries, and of due ones."""


def tag_slot(tag: str) -> int:
    """The same in every process and scope."""
    return crc32(tag.encode(errors="surrogatepass")) % TAG_SLOTS
