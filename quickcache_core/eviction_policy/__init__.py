"""Who leaves when the cache is full."""

from quickcache_core.eviction_policy.base import BaseEvictionPolicy, EvictionPolicy
from quickcache_core.eviction_policy.fifo import FIFOEvictionPolicy
from quickcache_core.eviction_policy.gdsf import GDSFEvictionPolicy
from quickcache_core.eviction_policy.lfu import LFUEvictionPolicy
from quickcache_core.eviction_policy.lfuda import LFUDAEvictionPolicy
from quickcache_core.eviction_policy.lru import LRUEvictionPolicy
from quickcache_core.eviction_policy.s3fifo import S3FIFOEvictionPolicy
from quickcache_core.eviction_policy.sieve import SieveEvictionPolicy
from quickcache_core.registry import eviction_policies

for _name, _policy in {
    "s3fifo": S3FIFOEvictionPolicy,
    "lru": LRUEvictionPolicy,
    "lfu": LFUEvictionPolicy,
    "lfuda": LFUDAEvictionPolicy,
    "fifo": FIFOEvictionPolicy,
    "gdsf": GDSFEvictionPolicy,
    "sieve": SieveEvictionPolicy,
}.items():
    eviction_policies.register(_name, _policy)

__all__ = [
    "BaseEvictionPolicy",
    "EvictionPolicy",
    "FIFOEvictionPolicy",
    "GDSFEvictionPolicy",
    "LFUDAEvictionPolicy",
    "LFUEvictionPolicy",
    "LRUEvictionPolicy",
    "S3FIFOEvictionPolicy",
    "SieveEvictionPolicy",
]
