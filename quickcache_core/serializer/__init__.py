"""How a value becomes bytes: one format a file, and what a value may share with its caller."""

from quickcache_core.serializer.base import BaseSerializer
from quickcache_core.serializer.json import JsonSerializer
from quickcache_core.serializer.msgpack import MsgpackSerializer
from quickcache_core.serializer.pickle import PickleSerializer

__all__ = ["BaseSerializer", "JsonSerializer", "MsgpackSerializer", "PickleSerializer"]
