"""Every exception of the cache. Each keeps its evidence as attributes and survives pickling."""

from __future__ import annotations

import os
import pickle
from typing import Any


class QuickCacheError(Exception):
    """Root of all errors that the cache raises on purpose."""

    code = "QUICKCACHE_ERROR"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ would call the class with the finished message, which is no argument of ours.
        state = {name: _picklable(value) for name, value in self.__dict__.items()}
        return (_rebuild, (type(self), self.args, state))


def _picklable(value: object) -> object:
    try:
        pickle.dumps(value)
    except Exception:
        return repr(value)
    return value


def _rebuild(cls: type[QuickCacheError], args: tuple[Any, ...], state: dict[str, Any]) -> QuickCacheError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # an integer of too many digits, or somebody's __repr__
        return f"<{type(value).__name__}>"


class Hidden:
    """Stands for a value that must not be shown."""

    def __init__(self, value: object) -> None:
        self._type = type(value).__name__

    def __repr__(self) -> str:
        return f"<{self._type}>"


class ConfigError(QuickCacheError, ValueError):
    """A setting is wrong: `field` names it, `value` is what was given, `remedy` what to do."""

    code = "CONFIG_ERROR"

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field}={safe_repr(value)}: {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy


class CacheMiss(QuickCacheError, KeyError):
    """There is no live value under `key`. Parent of `KeyNotFound` and `KeyExpired`."""

    code = "CACHE_MISS"

    def __init__(self, key: str, message: str | None = None) -> None:
        super().__init__(message or f"Key {key!r} has no live value")
        self.key = key

    # KeyError's own __str__ shows the repr of the message.
    __str__ = Exception.__str__


class KeyNotFound(CacheMiss):
    """The key was never stored, or has left the cache."""

    code = "KEY_NOT_FOUND"

    def __init__(self, key: str) -> None:
        super().__init__(key, f"Key {key!r} not found")


class KeyExpired(CacheMiss):
    """The key was stored, and its TTL has ended since."""

    code = "KEY_EXPIRED"

    def __init__(self, key: str) -> None:
        super().__init__(key, f"Key {key!r} has expired")


class KeyAlreadyExists(QuickCacheError):
    """`add` found a live value under the key."""

    code = "KEY_ALREADY_EXISTS"

    def __init__(self, key: str) -> None:
        super().__init__(f"Key {key!r} already exists")
        self.key = key


class InvalidTTL(QuickCacheError, ValueError):
    """A TTL that is no positive duration."""

    code = "INVALID_TTL"

    def __init__(self, ttl: object, field: str = "ttl_sec") -> None:
        super().__init__(
            f"{field}={safe_repr(ttl)}: give a number of seconds above 0, a timedelta above 0, "
            "None for the default, or NEVER for an entry without an end"
        )
        self.ttl = ttl
        self.field = field


class InvalidKey(QuickCacheError, ValueError):
    """A key that is no string."""

    code = "INVALID_KEY"

    def __init__(self, key: object) -> None:
        super().__init__(
            f"key={safe_repr(key)}: keys are strings, this is {type(key).__name__}; "
            "pass str(...) or an f-string"
        )
        self.key = key


class SerializationError(QuickCacheError):
    """A value can't be turned into bytes, or bytes can't be turned back. The cause is chained."""

    code = "SERIALIZATION_ERROR"

    def __init__(
        self,
        message: str,
        *,
        key: str | None = None,
        serializer: str | None = None,
        lacks: str | None = None,
    ) -> None:
        super().__init__(message)
        self.key = key
        self.serializer = serializer
        self.lacks = lacks
        """The field of the configuration that is missing; adapters name it as they call it."""


class ValueTooLarge(QuickCacheError, ValueError):
    """A value takes more room than the store can give to one entry."""

    code = "VALUE_TOO_LARGE"

    def __init__(self, key: str, size: int, limit: int) -> None:
        super().__init__(
            f"The value of key {key!r} takes {size} bytes, and one entry may take {limit}; "
            "raise max_bytes, or store it in parts"
        )
        self.key = key
        self.size = size
        self.limit = limit


class LoaderTimeout(QuickCacheError, TimeoutError):
    """A value didn't come within `hard_timeout`, and there was no older one. The load goes on."""

    code = "LOADER_TIMEOUT"

    def __init__(self, key: str, seconds: float) -> None:
        super().__init__(
            f"The loader of key {key!r} gave no value within {seconds:g} s; it goes on in the background. "
            "Raise hard_timeout, or set stale_ttl to have an older value served meanwhile"
        )
        self.key = key
        self.seconds = seconds


class LockError(QuickCacheError):
    """Something is wrong with a lock: `name` says which. Parent of `LockTimeout` and `LockNotOwned`."""

    code = "LOCK_ERROR"

    def __init__(self, name: str, message: str | None = None) -> None:
        super().__init__(message or f"Lock {name!r} can't be used like this")
        self.name = name


class LockTimeout(LockError, TimeoutError):
    """Somebody else held the lock for as long as `with` may wait."""

    code = "LOCK_TIMEOUT"

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(
            name,
            f"Lock {name!r} wasn't free within {seconds:g} s; give a longer wait, or use acquire(), which "
            "returns False then",
        )
        self.seconds = seconds


class LockNotOwned(LockError):
    """The lock isn't held with that token: it never was, was released, or its lease has ended, and somebody
    else may hold it.
    """

    code = "LOCK_NOT_OWNED"

    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            f"Lock {name!r} isn't held with this token: it was released, or its lease has ended and somebody "
            "else may hold it; give a longer lease, call extend() in time, or pass the token that took it",
        )


class UnstableArgument(QuickCacheError, TypeError):
    """A call of a cached function can't be told from others: no key can be made of one of its arguments."""

    code = "UNSTABLE_ARGUMENT"

    def __init__(self, function: str, argument: str, kind: str, reason: str | None = None) -> None:
        why = f": it {reason}" if reason else ", which has no form that is the same in every process"
        super().__init__(
            f"{function}: no key can be made of the argument {argument!r} with a value of type {kind}{why}. "
            f"If the result doesn't depend on it, leave it out with ignore=({argument!r},); else name what "
            "it depends on in a template such as key='name:{id}', in a method __cache_key__ of the class, or "
            "with register_stable_form"
        )
        self.function = function
        self.argument = argument
        self.kind = kind
        """The type that is in the way: that of the argument or of something in it."""
        self.reason = reason


class QueueFull(QuickCacheError):
    """Writes behind wait for a source that doesn't keep up, and there is no room for more of them."""

    code = "QUEUE_FULL"

    def __init__(self, pending: int, max_pending: int, patience: float) -> None:
        super().__init__(
            f"{pending} writes are pending, of {max_pending} that may be, dead letters included, and none "
            f"left within {patience:g} s; look at the source, or raise max_pending or patience"
        )
        self.pending = pending
        self.max_pending = max_pending
        self.patience = patience


class StoreUnavailable(QuickCacheError):
    """The store can't be reached, and the operation can't be answered without it."""

    code = "STORE_UNAVAILABLE"


class _FileError(QuickCacheError):
    _verb = "use"

    def __init__(self, filepath: str | os.PathLike[str] | None, reason: object) -> None:
        super().__init__(f"Failed to {self._verb} {filepath}: {reason}")
        self.filepath = None if filepath is None else str(filepath)
        self.reason = str(reason)


class CacheSaveError(_FileError):
    """A snapshot could not be written. A file that was there before is untouched."""

    code = "CACHE_SAVE_ERROR"
    _verb = "save the cache to"


class CacheLoadError(_FileError):
    """A snapshot could not be read. The cache is as it was."""

    code = "CACHE_LOAD_ERROR"
    _verb = "load the cache from"


class CacheMetricsSaveError(_FileError):
    """The metrics could not be written. A file that was there before is untouched."""

    code = "CACHE_METRICS_SAVE_ERROR"
    _verb = "save the metrics to"
