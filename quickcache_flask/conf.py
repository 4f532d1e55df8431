"""Flask's settings become arguments of the backend, and errors name the setting as the app wrote it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pickle import PicklingError
from typing import Any

from flask import Flask

from quickcache_core import FIELDS, NEVER, TTL, ConfigError, SerializationError, nearest_option
from quickcache_core.moving import IN_MEMORY, WITHOUT_EFFECT, former_option, meant_elsewhere
from quickcache_core.serializer.signing import is_too_short, said_of_short, without_short

PREFIX = "CACHE_QUICKCACHE_"
DEFAULT_THRESHOLD = 500
DEFAULT_TIMEOUT = 300
DEFAULT_KEY_PREFIX = "flask_cache_"

# Flask-Caching's own settings: the argument that each stands for, and the value that Flask-Caching fills in.
# A setting with that value counts as not given, because one can't tell.
_FLASK_SETTINGS = {
    "CACHE_THRESHOLD": ("threshold", DEFAULT_THRESHOLD),
    "CACHE_DEFAULT_TIMEOUT": ("default_timeout", DEFAULT_TIMEOUT),
    "CACHE_IGNORE_ERRORS": ("ignore_delete_many_errors", False),
    "CACHE_KEY_PREFIX": ("key_prefix", DEFAULT_KEY_PREFIX),
}
_FLASK_ARGUMENTS = [*(argument for argument, _ in _FLASK_SETTINGS.values()), "ignore_errors"]
_SECRETS = ("secret", "secret_fallbacks", "location", "redis_options")
"""Settings whose errors show what the core shows of them: a location may have a password in it."""
NOT_SHOWN = "(not shown)"


@dataclass(frozen=True, slots=True)
class Setting:
    """A value for an argument of the backend."""

    value: Any
    given: Any
    """What the app wrote; `value` may be a translation of it."""
    name: str
    """Where: `CACHE_THRESHOLD`, `CACHE_OPTIONS["max_size"]`, `CACHE_QUICKCACHE_MAX_SIZE` ..."""


def read_settings(config: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Setting]:
    """What the app chose, by argument of the backend; threshold and timeout as `max_size` and `default_ttl`.

    `config` is Flask-Caching's; `options` are the keyword arguments that it gives to a backend, CACHE_OPTIONS
    among them. Raises `ConfigError` for a name that doesn't exist, and for two different values for one
    argument.
    """
    settings: dict[str, Setting] = {}
    for name, argument, given in _written(config, options):
        argument, value = _translated(argument, given, name)
        first = settings.setdefault(argument, Setting(value, given, name))
        if first.value != value:
            shown = (NOT_SHOWN, "another") if argument in _SECRETS else (given, repr(first.given))
            raise ConfigError(name, shown[0], f"{first.name} is {shown[1]}; keep one of the two")
    return settings


def named_as_written(error: ConfigError, settings: Mapping[str, Setting]) -> ConfigError:
    """`error` on an argument, as an error on the setting that the argument came from."""
    setting = settings.get(error.field)
    if setting is None:
        return error
    # The core shows of a secret only what may be seen.
    value = error.value if error.field in _SECRETS else setting.given
    return ConfigError(setting.name, value, error.remedy)


def doubts(app: Flask, config: Mapping[str, Any], settings: Mapping[str, Setting]) -> Iterator[str]:
    """What was left behind by another type of cache, so that each worker has a cache of its own unawares."""
    location = settings.get("location")
    if location is not None and "://" in str(location.value):
        return
    meant = meant_elsewhere(location.value) if location else None
    if location and meant:
        yield f"{location.name} {IN_MEMORY}: {meant}"
    if config.get("CACHE_TYPE") != app.config.get("CACHE_TYPE", config.get("CACHE_TYPE")):
        return  # the app has another cache, whose settings they may be
    for name in WITHOUT_EFFECT:
        if config.get(name):
            hint = former_option(name, 'CACHE_OPTIONS["{}"]'.format)
            yield f"{name} has no effect, and the store is in memory: {hint}"


def unpicklable(error: SerializationError) -> PicklingError:
    """`error` as cachelib says it, in the names of the app's settings."""
    if error.lacks == "secret":
        return PicklingError(
            "The value would have to be signed, since others may read what is stored, and there is no secret "
            'key: set app.secret_key, at least 16 bytes, or CACHE_OPTIONS["serializer"], such as "json"'
        )
    return PicklingError(str(error))


def secrets_of(app: Flask) -> dict[str, Any]:
    """The app's secret keys, for looking up when one is needed: apps often set them after `init_app`.

    Those that are too short to sign with count as not given: they are good enough for Flask.
    """
    return {
        "secret": lambda: None if is_too_short(app.secret_key) else app.secret_key,
        "secret_fallbacks": lambda: without_short(
            app.config.get("SECRET_KEY_FALLBACKS") or (), "SECRET_KEY_FALLBACKS"
        ),
    }


def doubts_of_secrets(app: Flask) -> Iterator[str]:
    """Of the app's secret keys, where the cache signs with them. Not for when the app is set up: the keys may
    come later.
    """
    former = app.config.get("SECRET_KEY_FALLBACKS") or ()
    yield from said_of_short(
        (
            ("app.secret_key", app.secret_key),
            *((f"SECRET_KEY_FALLBACKS[{number}]", each) for number, each in enumerate(former)),
        )
    )


def in_memory(location: Any) -> bool:
    """Whether that is the location of a store in memory. What is wrong with a location is said elsewhere."""
    return isinstance(location, str) and ("://" not in location or location.startswith("memory://"))


def published_as(app: Flask, location: str, ordinal: int) -> str:
    """The name under which the workers and the commands of an app find each other: the app, and the store, by
    its name or as the app's first, second ... cache.
    """
    # Not the import name, which is __main__ where the app is run as a program.
    store = location.removeprefix("memory://") or f"cache {ordinal}"
    return f"flask {app.name} {os.path.realpath(app.root_path)} {store}"


def ttl_of(timeout: Any) -> TTL | None:
    """A timeout as Flask-Caching has them, as a TTL of the core: `NEVER` for 0, None ("keep nothing") below
    0.

    Fractions of a second stay. Raises `TypeError`, as cachelib does, for what is neither a number nor a
    timedelta.
    """
    seconds: Any = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    try:
        if 0 < seconds < math.inf:
            return float(seconds)
        if seconds == 0 or seconds > 0:
            return NEVER
        if seconds < 0:
            return None
    except TypeError:
        pass
    raise TypeError(
        f"timeout={timeout!r}: give seconds or a timedelta, 0 for no end, or None for the default"
    )


def default_ttl_of(timeout: Any, name: str) -> TTL:
    """As `ttl_of`, for a default: `ConfigError`, naming the setting, for a negative one and for what is
    none."""
    try:
        ttl = ttl_of(timeout)
    except TypeError:
        ttl = None
    if ttl is None:
        raise ConfigError(
            name, timeout, "give seconds or a timedelta above 0, or 0 for entries without an end"
        )
    return ttl


def _written(config: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Each setting as (its name, the argument, its value)."""
    chosen = config.get("CACHE_OPTIONS") or {}
    for argument, given in options.items():
        name = f'CACHE_OPTIONS["{argument}"]'
        if argument not in FIELDS and argument not in _FLASK_ARGUMENTS:
            hint = nearest_option(str(argument), [*FIELDS, *_FLASK_ARGUMENTS])
            raise ConfigError(name, _harmless(given), f"unknown option; {hint}")
        # The others are settings of Flask-Caching, which come below with their names.
        if argument in chosen:
            yield name, argument, given
    for name, given in config.items():
        if name.startswith(PREFIX):
            option = name.removeprefix(PREFIX)
            if option != option.upper() or option.lower() not in FIELDS:
                hint = nearest_option(option, [field.upper() for field in FIELDS])
                raise ConfigError(name, _harmless(given), f"unknown option; after {PREFIX}, {hint}")
            yield name, option.lower(), given
    for name, (argument, filled_in) in _FLASK_SETTINGS.items():
        given = config.get(name, filled_in)
        if given != filled_in:
            yield name, argument, given


def _translated(argument: str, given: Any, name: str) -> tuple[str, Any]:
    if argument == "threshold":
        return "max_size", given or DEFAULT_THRESHOLD
    if argument == "default_timeout":
        return "default_ttl", default_ttl_of(given, name)
    if argument == "default_ttl":
        # In one form, to be compared with the above.
        return argument, given.total_seconds() if isinstance(
            given, timedelta
        ) else NEVER if given is None else given
    return argument, given


def _harmless(given: Any) -> Any:
    # Perhaps a secret under a wrong name: errors end up in logs.
    return given if isinstance(given, int | float) else NOT_SHOWN
