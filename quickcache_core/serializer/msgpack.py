"""MessagePack through msgspec: as JSON, smaller and faster, with bytes."""

from __future__ import annotations

from typing import Any

from quickcache_core.errors import ConfigError, SerializationError
from quickcache_core.registry.decorators import register_serializer
from quickcache_core.serializer.base import BaseSerializer
from quickcache_core.serializer.plain import PlainCheck

_SCALARS = (str, bytes, int, float, bool, type(None))
_check = PlainCheck("msgpack", leaves=_SCALARS, keys=_SCALARS)


@register_serializer("msgpack")
class MsgpackSerializer(BaseSerializer):
    """Refuses what would come back changed: tuples, sets, dates, subclasses of the types it knows.

    Integers reach from -2**63 to 2**64 - 1. Making one raises `ConfigError` where msgspec isn't installed.
    """

    extension = "msgpack"
    is_binary = True

    def __init__(self) -> None:
        try:
            import msgspec
        except ImportError as error:
            raise ConfigError(
                "serializer", "msgpack", 'needs msgspec: pip install "quickcache-web[msgpack]"'
            ) from error
        self._encode = msgspec.msgpack.encode
        self._decode = msgspec.msgpack.decode

    def serialize(self, data: Any) -> bytes:
        try:
            _check(data)
            return self._encode(data)
        except RecursionError as error:
            raise SerializationError(
                "The value is nested too deeply for msgpack, or contains itself; flatten it, "
                "or use serializer='pickle'",
                serializer="msgpack",
            ) from error
        except (ValueError, TypeError, OverflowError, RuntimeError) as error:
            raise SerializationError(
                f"msgpack can't hold a {type(data).__qualname__} with this in it: {error}; "
                "use serializer='pickle'",
                serializer="msgpack",
            ) from error

    def deserialize(self, data: bytes) -> Any:
        try:
            return self._decode(data)
        # msgspec's own errors are ValueErrors.
        except (ValueError, TypeError, RecursionError) as error:
            raise SerializationError(f"This is no MessagePack: {error}", serializer="msgpack") from error
