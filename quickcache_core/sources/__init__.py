"""A cache in front of a data source: reading through it, writing through, around and behind."""

from quickcache_core.sources.base import AsyncSource, BaseAsyncSource, BaseSource, Source
from quickcache_core.sources.options import WriteFailure
from quickcache_core.sources.queue import DeadLetter
from quickcache_core.sources.sourced import SourcedCache
from quickcache_core.sources.table import TableSource

__all__ = [
    "AsyncSource",
    "BaseAsyncSource",
    "BaseSource",
    "DeadLetter",
    "Source",
    "SourcedCache",
    "TableSource",
    "WriteFailure",
]
