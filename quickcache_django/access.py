"""Who may see figures over HTTP: nobody, unless the settings say so, or DEBUG is on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils.module_loading import import_string

from quickcache_core.metrics.access import check_token, has_token

SETTING: Final = "QUICKCACHE_METRICS"
_KNOWN: Final = ("TOKEN", "PERMISSION", "ACCESS")


def may_look(request: HttpRequest) -> bool:
    """Raises `ImproperlyConfigured` if the setting is wrong, whatever the request is."""
    rules = _rules()
    if settings.DEBUG:
        return True
    token, permission, access = (rules.get(name) for name in _KNOWN)
    if token is not None and has_token(request.headers.get("Authorization", ""), token):
        return True
    if permission is not None:
        user = getattr(request, "user", None)
        if user is not None and user.has_perm(permission):
            return True
    return access is not None and access(request) is True


def wants_token() -> bool:
    return "TOKEN" in _rules()


def _rules() -> dict[str, Any]:
    given = getattr(settings, SETTING, {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"{SETTING}: give a dictionary of {', '.join(_KNOWN)}")
    for name in given:
        if name not in _KNOWN:
            raise ImproperlyConfigured(f"{SETTING}[{name!r}]: there are {', '.join(_KNOWN)}")
    rules = dict(given)
    if "TOKEN" in rules:
        try:
            check_token(f"{SETTING}['TOKEN']", rules["TOKEN"])
        except ValueError as error:
            raise ImproperlyConfigured(str(error)) from None
    if not isinstance(rules.get("PERMISSION", ""), str):
        raise ImproperlyConfigured(f"{SETTING}['PERMISSION']: give a name such as 'shop.view_metrics'")
    if "ACCESS" in rules:
        access = rules["ACCESS"]
        try:
            rules["ACCESS"] = import_string(access) if isinstance(access, str) else access
        except ImportError as error:
            raise ImproperlyConfigured(f"{SETTING}['ACCESS']: {error}") from error
        if not callable(rules["ACCESS"]):
            raise ImproperlyConfigured(
                f"{SETTING}['ACCESS']: give a function of the request that returns True or False, or its path"
            )
    return rules
