"""What a serializer owes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from quickcache_core.registry import serializers


class BaseSerializer(ABC):
    """Turns a value into text or bytes and back.

    One instance serves all threads of a process, so it keeps nothing between two calls. Whatever an
    implementation raises, callers see a `SerializationError` that is chained from it.
    """

    needs_signature: bool = False
    """Whether `deserialize` can be made to run code that hides in the data, as unpickling can. Snapshots in
    such a format are written and read only with a secret, unless that was switched off on purpose."""

    extension: str
    """Ending of the names of snapshot files, without the dot. A class attribute or a property."""

    is_binary: bool
    """Whether `serialize` returns bytes; if not, it returns str. A class attribute or a property."""

    @abstractmethod
    def serialize(self, data: Any) -> str | bytes:
        """Raise rather than return something that `deserialize` would turn into a different value."""

    @abstractmethod
    def deserialize(self, data: Any) -> Any:
        """The value that `serialize` got; `data` is str or bytes, as `is_binary` says."""

    def serialize_for_people(self, data: Any) -> str | bytes:
        """As `serialize`, laid out for reading where the format has a choice. Metrics files use it."""
        return self.serialize(data)


def serializer_name(serializer: BaseSerializer) -> str:
    """What a snapshot calls its format: the registered name, else "module:Class"."""
    return serializers.name_of(type(serializer))


serializers.accepts(BaseSerializer)
