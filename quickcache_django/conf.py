"""From an entry of `CACHES` to a configured engine. Names from settings end here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from math import inf, isfinite
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.cache.backends.base import InvalidCacheBackendError, get_key_func
from django.core.exceptions import ImproperlyConfigured
from django.utils.safestring import SafeString

from quickcache_core import FIELDS, NEVER, ConfigError, QuickCache, QuickCacheConfig, nearest_option
from quickcache_core.errors import Hidden
from quickcache_core.relay import Relay
from quickcache_core.serializer.signing import is_too_short, without_short

CORE_OPTIONS: Final = {name.upper(): name for name in FIELDS if name != "location"}
"""Field of the core by its name in `OPTIONS`."""

DJANGO_OPTIONS: Final = {"MAX_ENTRIES": "max_size", "CULL_FREQUENCY": "cull_fraction"}
"""Field of the core by the name that Django has for it in `OPTIONS`."""


@contextmanager
def own_connections() -> Iterator[None]:
    """Around a load in a background thread: databases are asked over connections that end with it."""
    from django.db import close_old_connections, connections

    close_old_connections()
    try:
        yield
    finally:
        # Not `close_old_connections`: with a CONN_MAX_AGE they would stay open, in a thread that soon ends.
        connections.close_all()


DEFAULTS: Final[Mapping[str, Any]] = {
    "max_size": 300,
    "isolation": "auto",
    "serializer": "pickle",
    "background_context": own_connections,
}
"""Where Django's habits differ from the core's defaults: its own MAX_ENTRIES, values that nobody else can
change, snapshots of all that can be cached, loaders that ask databases."""

TIMEOUT: Final = 300
"""Seconds; Django's own default."""

# Aliases without a LOCATION share one store, as with LocMemCache. For the engine an empty one means a store
# for this object only, and Django makes an object per thread and task.
_UNNAMED: Final = "memory://django: no LOCATION"

_ENTRY_NAMES: Final = ("BACKEND", "LOCATION", "TIMEOUT", "KEY_PREFIX", "VERSION", "KEY_FUNCTION", "OPTIONS")
# Django's BaseCache reads these as well.
_LOWER_CASE_NAMES: Final = {
    "timeout": "TIMEOUT",
    "max_entries": "MAX_ENTRIES",
    "cull_frequency": "CULL_FREQUENCY",
}

NOT_KEPT: Final[Any] = object()
"""What the engine has no TTL for: a timeout of 0 or below, with which nothing is kept."""

UNKNOWN: Final = "quickcache.E001"
WRONG_VALUE: Final = "quickcache.E002"
GIVEN_TWICE: Final = "quickcache.E003"
NOT_INSTALLED: Final = "quickcache.E004"
WRONG_LOCATION: Final = "quickcache.E005"
TWO_POLICIES: Final = "quickcache.E006"
WRONG_DIRECTORY: Final = "quickcache.E007"
TWO_SIZES: Final = "quickcache.E008"

_CONFLICTS: Final = {"eviction_policy": TWO_POLICIES, "max_bytes": TWO_SIZES}
"""What aliases of one LOCATION have to agree about, by field."""


class SettingError(InvalidCacheBackendError):
    """A setting of a cache is wrong. `check_id` is the system check that finds it."""

    def __init__(self, check_id: str, setting: str, value: object, remedy: str) -> None:
        # A secret must not end up in logs and on error pages, nor one under a name of another cache.
        is_unknown = check_id == UNKNOWN and not isinstance(value, int | float)
        hidden = is_unknown or setting.startswith(("SECRET", "REDIS_OPTIONS"))
        # Nor in the attributes, which error reporters send along.
        value = Hidden(value) if hidden and not isinstance(value, Hidden) else value
        self.shown = repr(value)
        super().__init__(f"{setting}={self.shown}: {remedy}")
        self.check_id = check_id
        self.setting = setting
        self.value = value
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.check_id, self.setting, self.value, self.remedy)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the settings of one alias come to."""

    timeout: int | float | None
    """Seconds; None for never. At 0 and below nothing is kept."""
    engine: QuickCache
    namespaces: tuple[str, ...] = ()
    """Of the engine, the outermost first."""

    @property
    def default_ttl(self) -> Any:
        """The engine's TTL where a call gives no timeout; None leaves it to the engine, which knows it."""
        return NOT_KEPT if engine_ttl(self.timeout) is NOT_KEPT else None

    def with_bounds(self, **changes: Any) -> Settings:
        """The same entries under other limits, `max_size` or `cull_fraction`."""
        engine = QuickCache(self.engine.config.replace(**changes))
        for name in self.namespaces:
            engine = engine.namespace(name)
        return replace(self, engine=engine)

    def with_namespace(self, name: str) -> Settings:
        """For entries of a namespace. Raises `ValueError`."""
        return replace(self, engine=self.engine.namespace(name), namespaces=(*self.namespaces, name))


_read: dict[Any, Settings] = {}
relay: Final = Relay()
"""Knows the engines, each with its LOCATION, for the signals."""


def read(location: str, params: Mapping[str, Any]) -> Settings:
    """The settings of one entry of `CACHES`, from which Django has taken BACKEND and LOCATION.

    Raises `SettingError` for the first thing that is wrong. An entry seen before costs a few microseconds:
    Django asks once per thread, task and alias.
    """
    seen_as = _identity(location, params)
    found = _read.get(seen_as) if seen_as is not None else None
    if found is None:
        reader = Reader(location, params)
        for problem in reader.problems():
            raise problem
        found = reader.settings()
        if seen_as is not None:
            found = _read.setdefault(seen_as, found)
        relay.add(found.engine, location)
    return found


def engines_in_use() -> list[QuickCache]:
    """One for each entry of `CACHES` that was read, but for those whose options can't be told apart
    cheaply."""
    return [settings.engine for settings in list(_read.values())]


def forget(engine: QuickCache) -> None:
    """Let go of an engine whose entry of `CACHES` is no more. For tests."""
    for seen_as in [one for one, settings in list(_read.items()) if settings.engine is engine]:
        _read.pop(seen_as, None)


def _identity(location: str, params: Mapping[str, Any]) -> Any:
    """What tells one entry of `CACHES` from another; None if that can't be told cheaply."""
    try:
        identity = (
            _hashable(location),
            # With the type, because True is equal to 1 and no number of entries.
            tuple(
                (name, type(value), _hashable(value)) for name, value in params.items() if name != "OPTIONS"
            ),
            tuple((name, type(value), _hashable(value)) for name, value in params.get("OPTIONS", {}).items()),
        )
        hash(identity)
    except (AttributeError, TypeError):
        return None
    return identity


def _hashable(value: Any) -> Any:
    if value.__class__ is dict:
        return tuple(value.items())
    return tuple(value) if value.__class__ is list else value


class Reader:
    """Reads one entry of `CACHES`: `problems` first, `settings` when there are none."""

    def __init__(self, location: Any, params: Mapping[str, Any]) -> None:
        self.location = location
        self._params = params
        self._timeout: int | float | None = TIMEOUT
        self._fields: dict[str, Any] = {}
        self.given_as: dict[str, str] = {}
        """The setting that each field came from."""

    def problems(self) -> Iterator[SettingError]:
        """What is wrong, one after the other."""
        options = self._params.get("OPTIONS", {})
        for name, value in self._params.items():
            yield from self._entry(name, value)
        if not isinstance(options, Mapping):
            yield SettingError(WRONG_VALUE, "OPTIONS", options, "give a dictionary of options")
            return
        for name, value in options.items():
            yield from self._option(name, value)
        yield from self._where()

    def policy(self) -> object:
        return self.value("eviction_policy")

    def value(self, field: str) -> Any:
        """Of a field of the core, given or not; None for a secret that wasn't given. Of settings without
        problems.
        """
        return {**DEFAULTS, **self._fields}.get(field, FIELDS[field].default)

    def settings(self) -> Settings:
        try:
            return Settings(self._timeout, QuickCache(self._config()))
        except ConfigError as error:  # what only shows when all comes together: one LOCATION, two policies
            check_id = _CONFLICTS.get(error.field, WRONG_VALUE)
            raise SettingError(check_id, error.field.upper(), error.value, error.remedy) from error

    def _entry(self, name: Any, value: Any) -> Iterator[SettingError]:
        """One name beside BACKEND."""
        known_as = _LOWER_CASE_NAMES.get(name, name)
        if known_as == "TIMEOUT":
            yield from self._take_timeout(name, value)
        elif name in _LOWER_CASE_NAMES:
            yield from self._take(name, DJANGO_OPTIONS[known_as], value)
        elif name == "KEY_FUNCTION":
            yield from self._key_function(value)
        elif name in _ENTRY_NAMES:
            return  # VERSION among them, although there is an option of that name
        elif name in CORE_OPTIONS or name in DJANGO_OPTIONS:
            yield SettingError(UNKNOWN, name, value, "move it into OPTIONS")
        else:
            yield SettingError(
                UNKNOWN, str(name), value, f"there is no such setting; {_nearest(name, _ENTRY_NAMES)}"
            )

    def _option(self, name: Any, value: Any) -> Iterator[SettingError]:
        """One name in OPTIONS."""
        if name == "DEFAULT_TTL":
            yield from self._take_default_ttl(name, value)
        elif name in DJANGO_OPTIONS:
            yield from self._take(name, DJANGO_OPTIONS[name], value)
        elif name in CORE_OPTIONS:
            yield from self._take(name, CORE_OPTIONS[name], value)
        elif name in _ENTRY_NAMES:
            yield SettingError(UNKNOWN, f"OPTIONS[{name!r}]", value, "move it out of OPTIONS, beside BACKEND")
        else:
            known = (*CORE_OPTIONS, *DJANGO_OPTIONS)
            yield SettingError(UNKNOWN, str(name), value, f"there is no such option; {_nearest(name, known)}")

    def _take(self, name: str, field: str, value: Any) -> Iterator[SettingError]:
        if field in self.given_as:
            other = self.given_as[field]
            yield SettingError(GIVEN_TWICE, name, value, f"{other} says the same; keep one of the two")
            return
        self.given_as[field] = name
        try:
            translate = _FROM_DJANGO.get(name.upper())
            translated: Any = translate(name, value) if translate else value
            QuickCacheConfig(**{**self._beside(), field: translated})
        except ConfigError as error:
            check_id = NOT_INSTALLED if isinstance(error.__cause__, ImportError) else WRONG_VALUE
            yield SettingError(check_id, name, value, error.remedy)
        else:
            self._fields[field] = translated

    def _beside(self) -> dict[str, Any]:
        """What a single option has to fit."""
        try:
            QuickCacheConfig(location=store_location(self.location))
        except (ConfigError, AttributeError, TypeError):
            return {}  # `_where` says what is wrong with it
        return {"location": store_location(self.location), "secret": _secret_key}

    def _take_timeout(self, name: str, value: Any) -> Iterator[SettingError]:
        if "default_ttl" in self.given_as:
            other = self.given_as["default_ttl"]
            yield SettingError(GIVEN_TWICE, name, value, f"{other} says the same; keep one of the two")
        self.given_as["default_ttl"] = name
        try:
            self._timeout = None if value is None else _number(name, value)
        except ConfigError as error:
            yield SettingError(WRONG_VALUE, name, value, error.remedy)

    def _take_default_ttl(self, name: str, value: Any) -> Iterator[SettingError]:
        problem = None
        for problem in self._take(name, "default_ttl", value):
            yield problem
        if problem is None:
            seconds = value.total_seconds() if isinstance(value, timedelta) else value
            self._timeout = None if seconds is NEVER else seconds

    def _key_function(self, value: Any) -> Iterator[SettingError]:
        problem = ""
        try:
            if callable(get_key_func(value)):
                return
        except ImportError as error:
            problem = f"{error}; "
        except AttributeError:  # neither a function nor a string
            pass
        remedy = "give a function of key, prefix and version, or where it is, as in 'shop.caching.make_key'"
        yield SettingError(WRONG_VALUE, "KEY_FUNCTION", value, f"{problem}{remedy}")

    def _where(self) -> Iterator[SettingError]:
        try:
            QuickCacheConfig(location=self.location)
        except ConfigError as error:
            # Not LOCATION itself, which may have a password in it.
            check_id = NOT_INSTALLED if isinstance(error.__cause__, ImportError) else WRONG_LOCATION
            yield SettingError(check_id, "LOCATION", error.value, error.remedy)

    def _config(self) -> QuickCacheConfig:
        fields = {**DEFAULTS, **self._fields, "location": store_location(self.location)}
        fields["immutable_types"] = (SafeString, *fields.get("immutable_types", ()))
        if self._timeout is None or self._timeout > 0:
            fields["default_ttl"] = self._timeout
        if fields["location"].startswith("memory://"):
            fields.setdefault("publish_as", published_as(fields["location"]))
        fields.setdefault("secret", _secret_key)
        fields.setdefault("secret_fallbacks", _secret_key_fallbacks)
        return QuickCacheConfig(**fields)


def store_location(location: str | list[str] | tuple[str, ...]) -> str:
    """The engine's name for a LOCATION; aliases with equal ones share their entries."""
    if not isinstance(location, str):
        return ",".join(location)
    if location in ("", "memory://"):
        return _UNNAMED
    return location if "://" in location else f"memory://{location}"


def published_as(location: str) -> str | None:
    """The name under which the workers and the commands of a project find each other: the file of its
    settings, and the store. None for settings that come from no file, as in tests.
    """
    try:
        module = getattr(django_settings, "SETTINGS_MODULE", None)
    except ImproperlyConfigured:  # there are no settings yet
        return None
    if not module:
        return None
    file = getattr(sys.modules.get(module), "__file__", None)
    return f"django {os.path.realpath(file) if file else module} {location}"


def _nearest(name: Any, known: Collection[str]) -> str:
    return nearest_option(str(name).upper(), tuple(known))


def _number(name: str, value: Any) -> int | float:
    """As Django reads numbers from settings, but what is no number is not replaced by a default."""
    try:
        number = float(value)
        if isinstance(value, bool) or not isfinite(number):
            raise ValueError
        return int(number) if number.is_integer() else number
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(name, value, "give seconds as a number, or None for never") from None


def _whole(name: str, value: Any) -> int:
    try:
        return int(_number(name, value))
    except ConfigError:
        return -1


def _max_size(name: str, value: Any) -> int:
    size = _whole(name, value)
    if size < 1:
        raise ConfigError(name, value, "give a whole number, at least 1")
    return size


def _cull_fraction(name: str, value: Any) -> float:
    frequency = _whole(name, value)
    if frequency < 0:
        raise ConfigError(
            name, value, "give 0 to drop all entries when the cache is full, or N to drop one in N"
        )
    return 1 / frequency if frequency else 1.0


def _release(name: str, value: Any) -> Any:
    if isinstance(value, int):
        raise ConfigError(
            name,
            value,
            "give a string, such as a release's number; Django's VERSION stands beside BACKEND",
        )
    return value


_FROM_DJANGO: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "VERSION": _release,
    "MAX_ENTRIES": _max_size,
    "CULL_FREQUENCY": _cull_fraction,
}


def _secret_key() -> str | None:
    """None for what can't sign; what needs no signature works without."""
    try:
        secret: str = django_settings.SECRET_KEY
    except ImproperlyConfigured:  # it is empty
        return None
    return None if is_too_short(secret) else secret


def _secret_key_fallbacks() -> list[str | bytes]:
    return without_short(django_settings.SECRET_KEY_FALLBACKS, "SECRET_KEY_FALLBACKS")


def engine_ttl(timeout: Any) -> Any:
    """The engine's TTL for a timeout of Django's, which is seconds, or None for never."""
    if timeout is None:
        return NEVER
    if 0 < timeout < inf:
        return float(timeout)
    return NEVER if timeout > 0 else NOT_KEPT
