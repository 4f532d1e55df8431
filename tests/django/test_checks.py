from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.checks import CheckMessage, Error, Tags, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from quickcache_django import QuickCache, conf
from quickcache_django.checks import check_caches

BACKEND = "quickcache_django.QuickCache"
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "django.md"


class Subclass(QuickCache):
    pass


def check(**aliases: dict[str, Any]) -> list[CheckMessage]:
    entries = {alias: {"BACKEND": BACKEND, **entry} for alias, entry in aliases.items()}
    with override_settings(CACHES={"default": {"BACKEND": BACKEND}, **entries}):
        return run_checks(tags=[Tags.caches])


def test_nothing_wrong() -> None:
    """A sound configuration passes, with all kinds of settings and with other backends beside it."""
    assert (
        check(
            default={"TIMEOUT": "60", "KEY_PREFIX": "p", "VERSION": 2, "KEY_FUNCTION": lambda *args: "k"},
            a={
                "LOCATION": "a",
                "OPTIONS": {"MAX_ENTRIES": 10e9, "CULL_FREQUENCY": 0, "EVICTION_POLICY": "lru"},
            },
            b={"LOCATION": "memory://b", "TIMEOUT": None, "OPTIONS": {"SERIALIZER": "json"}},
            locmem={"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"ANY": 1}},
        )
        == []
    )


@pytest.mark.parametrize(
    ("check_id", "entry", "text", "hint"),
    [
        ("E001", {"OPTIONS": {"MAX_ENTRYS": 5}}, "MAX_ENTRYS=5", "did you mean 'MAX_ENTRIES'?"),
        ("E001", {"MAX_ENTRIES": 5}, "MAX_ENTRIES=5", "Move it into OPTIONS."),
        ("E002", {"OPTIONS": {"EVICTION_POLICY": "best"}}, "EVICTION_POLICY='best'", "s3fifo"),
        ("E002", {"TIMEOUT": "soon"}, "TIMEOUT='soon'", "Give seconds as a number, or None for never."),
        ("E002", {"OPTIONS": {"SECRET": 5}}, "SECRET=<int>", ""),
        (
            "E003",
            {"OPTIONS": {"MAX_ENTRIES": 5, "MAX_SIZE": 6}},
            "MAX_SIZE=6",
            "MAX_ENTRIES says the same; keep one",
        ),
        ("E005", {"LOCATION": "ftp://x"}, "LOCATION='ftp://x'", "Unknown scheme"),
        ("E005", {"LOCATION": "redis://x/y"}, "LOCATION='redis://x/y'", "The database is a number"),
        ("E005", {"LOCATION": "redis://:pw@x/y"}, "LOCATION=<str>", "The database is a number"),
    ],
)
def test_something_wrong(check_id: str, entry: dict[str, Any], text: str, hint: str) -> None:
    """Each mistake has an id, names the alias, the setting and the value, and hints at the remedy."""
    [message] = check(shop=entry)
    assert isinstance(message, Error)
    assert message.id == f"quickcache.{check_id}"
    assert message.msg == f"CACHES['shop']: {text} is wrong."
    assert message.hint is not None
    assert hint in message.hint
    with pytest.raises(conf.SettingError) as raised:
        conf.read(
            entry.get("LOCATION", ""), {name: value for name, value in entry.items() if name != "LOCATION"}
        )
    assert raised.value.check_id == message.id


@pytest.mark.parametrize(("option", "value"), [("SERIALIZER", "msgpack"), ("METRICS_SERIALIZER", "msgpack")])
def test_library_that_is_not_installed(option: str, value: str) -> None:
    """A serializer whose library is missing says what to install."""
    with mock.patch.dict(sys.modules, {"msgspec": None}):
        [message] = check(shop={"OPTIONS": {option: value}})
    assert message.id == "quickcache.E004"
    assert "pip install" in str(message.hint)


def test_one_location_two_policies() -> None:
    """Found across aliases, whichever way the LOCATION is written."""
    [message] = check(
        a={"LOCATION": "x", "OPTIONS": {"EVICTION_POLICY": "lru"}},
        b={"LOCATION": "memory://x"},
        c={"LOCATION": "y"},
    )
    assert message.id == "quickcache.E006"
    assert "CACHES['b']" in message.msg
    assert "Alias 'a'" in str(message.hint)


def test_all_at_once() -> None:
    """All mistakes of all aliases are listed, not the first only."""
    messages = check(
        a={"OPTIONS": {"MAX_SIZE": 0, "EVICTION_POLICY": "best", "XYZ": 1}, "TIMEOUT": "soon"},
        b={"BACKEND": f"{__name__}.Subclass", "OPTIONS": {"FILENAME": ""}},
    )
    assert sorted((message.msg.split(":")[0], message.id) for message in messages) == [
        ("CACHES['a']", "quickcache.E001"),
        ("CACHES['a']", "quickcache.E002"),
        ("CACHES['a']", "quickcache.E002"),
        ("CACHES['a']", "quickcache.E002"),
        ("CACHES['b']", "quickcache.E002"),
    ]


def test_backend_that_does_not_exist() -> None:
    """Django says that itself; our check leaves it alone."""
    caches = {"default": {"BACKEND": "no.such.Backend"}, "odd": {}, "odder": 5}
    with override_settings(CACHES=caches):
        assert check_caches(None) == []


def test_manage_py_check() -> None:
    """`manage.py check` fails and shows the id."""
    wrong = {"default": {"BACKEND": BACKEND, "OPTIONS": {"MAX_SIZE": "many"}}}
    with override_settings(CACHES=wrong), pytest.raises(SystemCheckError, match=r"quickcache\.E002"):
        call_command("check")


def test_every_id_is_documented() -> None:
    """Each id stands in the documentation, and nothing else does."""
    ids = {
        value
        for name, value in vars(conf).items()
        if name.isupper() and str(value).startswith("quickcache.E")
    }
    assert len(ids) == 6
    assert set(re.findall(r"quickcache\.[EW]\d+", DOCUMENTATION.read_text())) == ids
