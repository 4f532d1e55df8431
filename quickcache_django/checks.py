"""System checks: `manage.py check` shows all that is wrong in `CACHES` at once, with the remedies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.utils.module_loading import import_string

from quickcache_django.backend import QuickCache
from quickcache_django.conf import TWO_POLICIES, Reader, SettingError, store_location


def check_caches(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """One error per wrong setting of each alias that uses the backend or a subclass of it."""
    found: list[CheckMessage] = []
    policies: dict[str, tuple[str, object]] = {}
    for alias, location, params in entries():
        reader = Reader(location, params)
        errors = list(reader.problems())
        if not errors:
            errors += _policy_conflict(alias, reader, policies)
        found += [_message(alias, error) for error in errors]
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


def _policy_conflict(
    alias: str, reader: Reader, policies: dict[str, tuple[str, object]]
) -> Iterator[SettingError]:
    policy = reader.policy()
    first, other = policies.setdefault(store_location(reader.location), (alias, policy))
    if other != policy:
        remedy = (
            f"alias {first!r} has the same LOCATION and {other!r}; give both one policy, or each a LOCATION"
        )
        yield SettingError(TWO_POLICIES, "EVICTION_POLICY", policy, remedy)


def _message(alias: str, error: SettingError) -> CheckMessage:
    text = f"CACHES[{alias!r}]: {error.setting}={error.shown} is wrong."
    hint = error.remedy[:1].upper() + error.remedy[1:]
    return Error(text, hint=hint if hint.endswith("?") else f"{hint}.", id=error.check_id)
