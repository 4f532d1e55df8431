"""The contract of a store for entries that have more than a TTL, as tests to inherit."""

from quickcache_core.testing.lives.basis import CommonContract
from quickcache_core.testing.lives.generations import GenerationContract
from quickcache_core.testing.lives.kinds import CHANGES, HARMLESS, LIVES, STALE, TAGGED
from quickcache_core.testing.lives.loads import LoadContract
from quickcache_core.testing.lives.records import RecordContract
from quickcache_core.testing.lives.refreshes import RefreshContract
from quickcache_core.testing.lives.sliding import SlidingContract
from quickcache_core.testing.lives.stale import StaleContract
from quickcache_core.testing.lives.tags import TagContract

__all__ = ["CHANGES", "HARMLESS", "LIVES", "STALE", "TAGGED", "LifeContract"]


class LifeContract(
    CommonContract,
    StaleContract,
    RefreshContract,
    SlidingContract,
    TagContract,
    LoadContract,
    GenerationContract,
    RecordContract,
):
    """Derive a test class from this, as from `StoreContract`; each test begins with an empty store."""
