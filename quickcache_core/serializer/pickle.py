"""Python's own format: any object, for this program only."""

from __future__ import annotations

import pickle
from typing import Any

from quickcache_core.errors import SerializationError
from quickcache_core.registry.decorators import register_serializer
from quickcache_core.serializer.base import BaseSerializer


@register_serializer("pickle")
class PickleSerializer(BaseSerializer):
    """Whoever writes a pickle decides what runs when it is loaded: `deserialize` only what was signed."""

    extension = "pkl"
    is_binary = True
    needs_signature = True

    def serialize(self, data: Any) -> bytes:
        try:
            return pickle.dumps(data, pickle.HIGHEST_PROTOCOL)
        # Any exception: __reduce__ and __getstate__ are the user's.
        except Exception as error:
            raise SerializationError(
                f"A {type(data).__qualname__} can't be pickled ({type(error).__name__}: {error}); "
                "store plain data, not lambdas, locks, open files or objects of local classes",
                serializer="pickle",
            ) from error

    def deserialize(self, data: bytes) -> Any:
        try:
            return pickle.loads(data)  # noqa: S301 - snapshots check the signature first
        except Exception as error:
            raise SerializationError(
                f"This can't be unpickled ({type(error).__name__}: {error}); it is damaged, "
                "or was written by a program whose classes or modules have other names",
                serializer="pickle",
            ) from error
