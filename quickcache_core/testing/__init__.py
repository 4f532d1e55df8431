"""For your tests: a clock that you turn, and the contracts that every store, policy and serializer must pass.

A contract is a class full of tests. Derive from it, say in one method what is to be tested, and any test
runner that collects `test_*` methods does the rest. Not imported by the cache itself.
"""

from quickcache_core.testing.books import check_books
from quickcache_core.testing.clock import ManualClock
from quickcache_core.testing.lives import LifeContract
from quickcache_core.testing.policies import EvictionPolicyContract
from quickcache_core.testing.serializers import SerializerContract
from quickcache_core.testing.stores import StoreContract

__all__ = [
    "EvictionPolicyContract",
    "LifeContract",
    "ManualClock",
    "SerializerContract",
    "StoreContract",
    "check_books",
]
