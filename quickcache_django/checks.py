"""System checks: `manage.py check` shows all that is wrong in `CACHES` at once, with the remedies.

Those with an E are mistakes, with which the cache won't work; those with a W may be meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error
from django.core.checks.security.base import (
    SECRET_KEY_INSECURE_PREFIX,
    SECRET_KEY_MIN_LENGTH,
    SECRET_KEY_MIN_UNIQUE_CHARACTERS,
)
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from quickcache_core import ConfigError
from quickcache_core.free_memory import memory_limit
from quickcache_core.location import check_directory, exposed_by, read_location, room_for
from quickcache_core.moving import IN_MEMORY, meant_elsewhere
from quickcache_core.scopes import DEFAULT_BYTES
from quickcache_core.serializer.signing import is_too_short, said_of_short
from quickcache_core.sizes import bytes_of, in_words
from quickcache_django.backend import QuickCache
from quickcache_django.conf import (
    TWO_POLICIES,
    TWO_SIZES,
    WRONG_DIRECTORY,
    Reader,
    SettingError,
    store_location,
)

SESSIONS: Final = "quickcache.W001"
THROTTLES: Final = "quickcache.W002"
EXPOSED: Final = "quickcache.W003"
UNSIGNED: Final = "quickcache.W004"
TOO_LARGE: Final = "quickcache.W005"
WEAK_KEY: Final = "quickcache.W006"
NO_NAME: Final = "quickcache.W007"
SHORT_KEY: Final = "quickcache.W008"

_SESSION_ENGINES = ("django.contrib.sessions.backends.cache", "django.contrib.sessions.backends.cached_db")
_WHERE_WORKERS_SHARE = 'Give it a LOCATION that all workers share, such as "shared:///srv/shop/cache"'


def check_caches(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """One error per wrong setting of each alias that uses the backend or a subclass of it; what is dangerous
    or can't be had, of those without errors.
    """
    found: list[CheckMessage] = []
    first: dict[str, tuple[str, Reader]] = {}
    for alias, reader, errors in _read():
        if not errors:
            errors += [
                *_conflicts(reader, *first.setdefault(store_location(reader.location), (alias, reader))),
                *_directory(reader),
            ]
        found += [_message(alias, error) for error in errors]
        if not errors:
            found += [
                *_exposed(alias, reader),
                *_unsigned(alias, reader),
                *_too_large(alias, reader),
                *_no_name(alias, reader),
                *_short_secret(alias, reader),
            ]
    return found


def check_deployment(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What is fine on the machine of a developer, and isn't where several workers serve the public."""
    found: list[CheckMessage] = []
    for alias, reader, errors in _read():
        if not errors:
            found += [
                *_sessions(alias, reader),
                *_throttles(alias, reader),
                *_weak_secret(alias, reader),
            ]
    return found


def entries() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Alias, LOCATION and the other parameters of each entry of `CACHES` that uses the backend."""
    for alias, entry in settings.CACHES.items():
        if isinstance(entry, Mapping) and _is_ours(entry.get("BACKEND")):
            params = {name: value for name, value in entry.items() if name not in ("BACKEND", "LOCATION")}
            yield alias, entry.get("LOCATION", ""), params


def _is_ours(backend: Any) -> bool:
    try:
        found = import_string(backend)
    except (ImportError, AttributeError):  # Django says what is wrong with it
        return False
    return isinstance(found, type) and issubclass(found, QuickCache)


def _read() -> Iterator[tuple[str, Reader, list[SettingError]]]:
    for alias, location, params in entries():
        reader = Reader(location, params)
        yield alias, reader, list(reader.problems())


# Errors


def _conflicts(reader: Reader, first: str, other: Reader) -> Iterator[SettingError]:
    """What an alias has to have in common with the `first` one of its LOCATION."""

    def conflict(check_id: str, setting: str, value: object, theirs: str, what: str) -> SettingError:
        remedy = (
            f"alias {first!r} has the same LOCATION and {theirs}; give both one {what}, or each a LOCATION"
        )
        return SettingError(check_id, setting, value, remedy)

    if reader.policy() != other.policy():
        yield conflict(TWO_POLICIES, "EVICTION_POLICY", reader.policy(), repr(other.policy()), "policy")
    if _size(reader) != _size(other):
        amount, theirs = reader.value("max_bytes"), other.value("max_bytes")
        has = "no MAX_BYTES" if theirs is None else repr(theirs)
        yield conflict(TWO_SIZES, "MAX_BYTES", amount, has, "size")


def _size(reader: Reader) -> object:
    """What all who share a store agree about: in scope `shared` the size, in memory whether there is one."""
    amount, scope = reader.value("max_bytes"), read_location(store_location(reader.location)).scope
    if scope == "shared":
        return DEFAULT_BYTES if amount is None else bytes_of("max_bytes", amount, 1)
    return scope == "memory" and amount is not None


def _directory(reader: Reader) -> Iterator[SettingError]:
    try:
        check_directory(store_location(reader.location))
    except ConfigError as error:
        yield SettingError(WRONG_DIRECTORY, "LOCATION", error.value, error.remedy)


def _message(alias: str, error: SettingError) -> CheckMessage:
    text = f"CACHES[{alias!r}]: {error.setting}={error.shown} is wrong."
    hint = error.remedy[:1].upper() + error.remedy[1:]
    return Error(text, hint=hint if hint.endswith("?") else f"{hint}.", id=error.check_id)


# Warnings


def _warning(check_id: str, alias: str, text: str, hint: str) -> CheckMessage:
    return checks.Warning(f"CACHES[{alias!r}]: {text}", hint=hint, id=check_id)


def _exposed(alias: str, reader: Reader) -> Iterator[CheckMessage]:
    directory = exposed_by(store_location(reader.location))
    if directory is not None:
        yield _warning(
            EXPOSED,
            alias,
            f"others may write into {directory}, and put a directory of theirs in the place of the cache's.",
            "Name a directory below one that only root or the user of the workers may write into.",
        )


def _unsigned(alias: str, reader: Reader) -> Iterator[CheckMessage]:
    if reader.value("allow_unsigned_pickle") and _pickles(reader):
        yield _warning(
            UNSIGNED,
            alias,
            "pickles are loaded without a signature. Who can write them can run any code in the workers.",
            'Leave ALLOW_UNSIGNED_PICKLE out: SECRET_KEY signs them; or use SERIALIZER "json".',
        )


def _too_large(alias: str, reader: Reader) -> Iterator[CheckMessage]:
    amount, location = reader.value("max_bytes"), store_location(reader.location)
    scope = read_location(location).scope
    if scope == "redis" or (scope == "memory" and amount is None):
        return
    try:
        wanted = DEFAULT_BYTES if amount is None else bytes_of("max_bytes", amount, 1)
        room = memory_limit() if scope == "memory" else room_for(location)
    except OSError:
        return  # nobody tells how much there is
    if wanted > room:
        where = "this process may have" if scope == "memory" else "the file system of its directory has"
        yield _warning(
            TOO_LARGE,
            alias,
            f"MAX_BYTES is {in_words(wanted)}, and {where} {in_words(room)} in all.",
            'Give less, or a share of the memory such as "10%".',
        )


def _no_name(alias: str, reader: Reader) -> Iterator[CheckMessage]:
    meant = meant_elsewhere(reader.location)
    if meant is not None:
        yield _warning(
            NO_NAME,
            alias,
            f"LOCATION {IN_MEMORY}.",
            f"{meant[:1].upper()}{meant[1:]}.",
        )


def _sessions(alias: str, reader: Reader) -> Iterator[CheckMessage]:
    in_caches = settings.SESSION_ENGINE in _SESSION_ENGINES
    if not in_caches or "django.contrib.sessions" not in settings.INSTALLED_APPS:
        return
    if alias == settings.SESSION_CACHE_ALIAS and _is_of_one_worker(reader):
        yield _warning(
            SESSIONS,
            alias,
            "sessions are kept in it, and each worker process has a cache of its own. With several workers, "
            "visitors are logged out, or see an older session, by who serves them.",
            f"{_WHERE_WORKERS_SHARE}, or keep sessions in the database.",
        )


def _throttles(alias: str, reader: Reader) -> Iterator[CheckMessage]:
    rest = getattr(settings, "REST_FRAMEWORK", None)
    named = rest.get("DEFAULT_THROTTLE_CLASSES", ()) if isinstance(rest, Mapping) else ()
    if _is_of_one_worker(reader) and any(_counts_in(throttle) == alias for throttle in named):
        yield _warning(
            THROTTLES,
            alias,
            "REST framework's throttles count in it, and each worker process has a cache of its own. With "
            "several workers, visitors may make several times as many requests.",
            f"{_WHERE_WORKERS_SHARE}.",
        )


def _counts_in(throttle: Any) -> object:
    """The alias of the cache that a throttle counts in."""
    try:
        found = import_string(throttle) if isinstance(throttle, str) else throttle
    except (ImportError, AttributeError, ImproperlyConfigured):
        return None
    # Django's proxy of a cache, which REST framework has.
    return getattr(getattr(found, "cache", None), "_alias", None)


def _short_secret(alias: str, reader: Reader) -> Iterator[CheckMessage]:
    for doubt in doubts_of_secrets(reader):
        yield _warning(
            SHORT_KEY,
            alias,
            f"{doubt}.",
            "Make a long random one with django.core.management.utils.get_random_secret_key, or use "
            'SERIALIZER "json". A former one may stay while something else needs it.',
        )


def doubts_of_secrets(reader: Reader) -> Iterator[str]:
    """Of the project's secret keys, where the alias signs with them."""
    if _signs_with_ours(reader):
        yield from said_of_short(_secrets())


def _signs_with_ours(reader: Reader) -> bool:
    return reader.value("secret") is None and _pickles(reader) and not _is_of_one_worker(reader)


def _weak_secret(alias: str, reader: Reader) -> Iterator[CheckMessage]:
    if not _signs_with_ours(reader):
        return
    for name, given in _secrets():
        secret = str(given)
        if not is_too_short(given) and (
            secret.startswith(SECRET_KEY_INSECURE_PREFIX)
            or len(secret) < SECRET_KEY_MIN_LENGTH
            or len(set(secret)) < SECRET_KEY_MIN_UNIQUE_CHARACTERS
        ):
            yield _warning(
                WEAK_KEY,
                alias,
                f"{name}, which signs its pickles, can be guessed. Who knows it and can write to the cache "
                "can run any code in the workers.",
                "Make a long random one with django.core.management.utils.get_random_secret_key, or use "
                'SERIALIZER "json".',
            )


def _secrets() -> Iterator[tuple[str, object]]:
    try:
        yield "SECRET_KEY", settings.SECRET_KEY
    except ImproperlyConfigured:
        return  # Django says that itself
    for number, secret in enumerate(settings.SECRET_KEY_FALLBACKS):
        yield f"SECRET_KEY_FALLBACKS[{number}]", secret


def _is_of_one_worker(reader: Reader) -> bool:
    return read_location(store_location(reader.location)).scope == "memory"


def _pickles(reader: Reader) -> bool:
    return bool(reader.value("serializer") == "pickle")
