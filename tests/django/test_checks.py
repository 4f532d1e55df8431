from __future__ import annotations

import os
import re
import sys
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Tags, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from quickcache_core.store.shared.opening import shared_stores
from quickcache_django import QuickCache, checks, conf
from quickcache_django.checks import check_caches, check_deployment

BACKEND = "quickcache_django.QuickCache"
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
CHECKS = Path(__file__).parents[2] / "docs" / "checks.md"
IDS = re.compile(r"quickcache\.[EW]\d+")


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
        ("E001", {"OPTIONS": {"PASSWORD": "hunter2"}}, "PASSWORD=<str>", "There is no such option"),
        ("E001", {"PASSWORD": "hunter2"}, "PASSWORD=<str>", "There is no such setting"),
        (
            "E001",
            {"OPTIONS": {"CONNECTION_POOL_KWARGS": {"password": "hunter2"}}},
            "CONNECTION_POOL_KWARGS=<dict>",
            "There is no such option",
        ),
        ("E002", {"OPTIONS": {"EVICTION_POLICY": "best"}}, "EVICTION_POLICY='best'", "s3fifo"),
        ("E002", {"TIMEOUT": "soon"}, "TIMEOUT='soon'", "Give seconds as a number, or None for never."),
        ("E002", {"OPTIONS": {"SECRET": 5}}, "SECRET=<int>", ""),
        (
            "E003",
            {"OPTIONS": {"MAX_ENTRIES": 5, "MAX_SIZE": 6}},
            "MAX_SIZE=6",
            "MAX_ENTRIES says the same; keep one",
        ),
        ("E002", {"KEY_FUNCTION": "no.such"}, "KEY_FUNCTION='no.such'", "No module named 'no'; give a"),
        ("E002", {"KEY_FUNCTION": "os.such"}, "KEY_FUNCTION='os.such'", "give a function of key, prefix and"),
        ("E002", {"KEY_FUNCTION": "os.sep"}, "KEY_FUNCTION='os.sep'", "Give a function of key, prefix and"),
        ("E002", {"KEY_FUNCTION": 5}, "KEY_FUNCTION=5", "Give a function of key, prefix and version"),
        ("E005", {"LOCATION": 5}, "LOCATION=5", "'shared://' and the absolute path of a directory"),
        ("E005", {"LOCATION": Path("/srv")}, f"LOCATION={Path('/srv')!r}", "'shared://' and the absolute"),
        ("E005", {"LOCATION": ["127.0.0.1:11211"]}, "LOCATION=['127.0.0.1:11211']", "redis://127.0.0.1:6379"),
        ("E001", {"OPTIONS": {"SOCKET_TIMEOUT": 5}}, "SOCKET_TIMEOUT=5", "in REDIS_OPTIONS"),
        ("E001", {"OPTIONS": {"PASSWORD": "s3cret"}}, "PASSWORD=<str>", "the URL in LOCATION"),
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


@pytest.mark.parametrize(
    ("scope", "one", "other", "told"),
    [
        ("memory", {}, {"MAX_BYTES": "1MB"}, "no MAX_BYTES"),
        ("memory", {"MAX_BYTES": "1MB"}, {}, "'1MB'"),
        ("shared", {"MAX_BYTES": "64MB"}, {"MAX_BYTES": "32MB"}, "'64MB'"),
        ("shared", {}, {"MAX_BYTES": "32MB"}, "no MAX_BYTES"),
    ],
)
def test_one_location_two_sizes(
    tmp_path: Path, scope: str, one: dict[str, Any], other: dict[str, Any], told: str
) -> None:
    """Found across aliases, as the first use would."""
    tmp_path.chmod(0o700)
    location = f"shared://{tmp_path}/cache" if scope == "shared" else f"memory://{tmp_path}"
    entries = {"a": {"LOCATION": location, "OPTIONS": one}, "b": {"LOCATION": location, "OPTIONS": other}}
    [message] = [message for message in check(**entries) if isinstance(message, Error)]
    assert message.id == "quickcache.E008"
    assert "CACHES['b']: MAX_BYTES" in message.msg
    assert f"Alias 'a' has the same LOCATION and {told}" in str(message.hint)
    if one and other:
        conf.read(location, {"OPTIONS": one})
        with pytest.raises(conf.SettingError) as raised:
            conf.read(location, {"OPTIONS": other})
        assert raised.value.check_id == message.id
        shared_stores.drop(f"{tmp_path}/cache")


@pytest.mark.parametrize(
    ("location", "one", "other"),
    [("x", "1MB", "2MB"), ("shared://{}/cache", "64MB", 64_000_000), ("redis://x", None, None)],
)
def test_one_location_and_sizes_that_go_together(tmp_path: Path, location: str, one: Any, other: Any) -> None:
    """In memory each alias may have its own; written in another way it is the same."""
    location = location.format(tmp_path)
    options = [{} if size is None else {"MAX_BYTES": size} for size in (one, other)]
    entries = {
        name: {"LOCATION": location, "OPTIONS": option} for name, option in zip("ab", options, strict=True)
    }
    assert "quickcache.E008" not in [message.id for message in check(**entries)]


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


class TestDirectories:
    """Of scope shared: what it would refuse at the first use is found, and nothing is made for it."""

    @pytest.mark.parametrize("given", ["file", "file/below", "foreign", "open"])
    def test_unusable(self, tmp_path: Path, given: str) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "foreign").mkdir()
        (tmp_path / "foreign" / "thesis.txt").touch()
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        [message] = check(shop={"LOCATION": f"shared://{tmp_path}/{given}"})
        assert isinstance(message, Error)
        assert message.id == "quickcache.E007"
        assert message.msg == f"CACHES['shop']: LOCATION='shared://{tmp_path}/{given}' is wrong."
        assert re.search("name|chmod", str(message.hint))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_somebody_elses(self, tmp_path: Path) -> None:
        (tmp_path / "theirs").mkdir(mode=0o700)
        os.chown(tmp_path / "theirs", 12345, 12345)
        [message] = check(shop={"LOCATION": f"shared://{tmp_path}/theirs"})
        assert message.id == "quickcache.E007"
        assert "belongs to user 12345" in str(message.hint)
        # What is below it is theirs as well.
        assert ids(check(shop={"LOCATION": f"shared://{tmp_path}/theirs/below"})) == ["W003"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_unwritable(self, tmp_path: Path) -> None:
        (tmp_path / "closed").mkdir(mode=0o500)
        [message] = check(shop={"LOCATION": f"shared://{tmp_path}/closed/below"})
        assert message.id == "quickcache.E007"
        assert "may not write" in str(message.hint)

    def test_sound(self, tmp_path: Path) -> None:
        """One that is there, one that isn't yet, and one that is in use."""
        (tmp_path / "there").mkdir(mode=0o700)
        for name in ("there", "new", "new/below"):
            assert alone(f"shared://{tmp_path}/{name}") == []
        assert not (tmp_path / "new").exists()
        with override_settings(
            CACHES={"default": {"BACKEND": BACKEND, "LOCATION": f"shared://{tmp_path}/new"}}
        ):
            caches["default"].set("k", 1)
            assert check_caches(None) == []

    def test_exposed(self, tmp_path: Path) -> None:
        """Others could put a directory of theirs in its place."""
        (tmp_path / "open" / "mine").mkdir(parents=True, mode=0o700)
        (tmp_path / "open").chmod(0o777)
        [message] = check(shop={"LOCATION": f"shared://{tmp_path}/open/mine"})
        assert message.id == "quickcache.W003"
        assert str(tmp_path / "open") in message.msg
        # As in /tmp, where others have no power over what is there, but anybody can come first.
        (tmp_path / "open").chmod(0o1777)
        assert check(shop={"LOCATION": f"shared://{tmp_path}/open/mine"}) == []
        assert alone(f"shared://{tmp_path}/open/new") == ["W003"]


class TestDangers:
    def test_unsigned_pickles(self, tmp_path: Path) -> None:
        """Of any scope, since snapshots are pickles, too; not of other serializers."""
        for location in ("", f"shared://{tmp_path}/c"):
            entry = {"LOCATION": location, "OPTIONS": {"ALLOW_UNSIGNED_PICKLE": True}}
            assert ids(check(shop=entry)) == ["W004"]
        assert check(shop={"OPTIONS": {"ALLOW_UNSIGNED_PICKLE": True, "SERIALIZER": "json"}}) == []
        assert check(shop={"OPTIONS": {"ALLOW_UNSIGNED_PICKLE": False}}) == []

    def test_more_bytes_than_there_are(self, tmp_path: Path) -> None:
        """More than the memory of the container, or than the file system has."""
        for location in ("apart", f"shared://{tmp_path}/c"):
            assert ids(check(shop={"LOCATION": location, "OPTIONS": {"MAX_BYTES": "1000TB"}})) == ["W005"]
            assert check(shop={"LOCATION": location, "OPTIONS": {"MAX_BYTES": "1MB"}}) == []
        assert check(shop={"LOCATION": "apart", "OPTIONS": {"MAX_BYTES": "10%"}}) == []

    def test_a_small_file_system(self, tmp_path: Path) -> None:
        """What a store takes if nobody says how much is more than a container's /dev/shm often has."""
        small = mock.Mock(f_frsize=4096, f_blocks=16_384)
        with mock.patch("quickcache_core.location.os.statvfs", return_value=small):
            [message] = check(shop={"LOCATION": f"shared://{tmp_path}/c"})
        assert message.id == "quickcache.W005"
        assert "MAX_BYTES is 128 MB, and the file system of its directory has 67.1 MB" in message.msg

    @pytest.mark.parametrize(
        ("location", "remedy"),
        [
            ("/var/tmp/cache", "'shared:///var/tmp/cache'"),
            ("127.0.0.1:11211", "'redis://127.0.0.1:6379'"),
            ("localhost:6379", "'redis://localhost:6379'"),
        ],
    )
    def test_a_place_that_is_the_name_of_a_store(self, location: str, remedy: str) -> None:
        """As it is left behind by other backends; `quickcache_check` says it, too."""
        [message] = check(shop={"LOCATION": location})
        assert message.id == "quickcache.W007"
        assert "the name of a store in memory" in message.msg
        assert remedy in str(message.hint)
        assert check(shop={"LOCATION": f"memory://{location}"}) == []
        with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": location}}):
            said = StringIO()
            call_command("quickcache_check", stdout=said)
        assert f"  warning  settings: {message.msg.split(': ')[1][:-1]}" in said.getvalue()
        assert remedy in said.getvalue()

    @pytest.mark.parametrize(
        "options", [{}, {"SERIALIZER": "json"}, {"SECRET": "one of its own, long enough"}]
    )
    def test_keys_that_are_too_short(self, tmp_path: Path, options: dict[str, Any]) -> None:
        """Each is named where it would sign pickles, also by `quickcache_check`, and shown nowhere."""
        shared = {"LOCATION": f"shared://{tmp_path}/c", "OPTIONS": {"MAX_BYTES": "4MB", **options}}
        keys = {"SECRET_KEY": "weak", "SECRET_KEY_FALLBACKS": [STRONG, "old-weak-key"]}
        with override_settings(**keys, CACHES={"default": {"BACKEND": BACKEND, **shared}}):
            found = check_caches(None)
            said = StringIO()
            call_command("quickcache_check", stdout=said)
            assert check(shop={}) == []
        names = [] if options else ["SECRET_KEY", "SECRET_KEY_FALLBACKS[1]"]
        assert [message.id for message in found] == ["quickcache.W008"] * len(names)
        for name, message in zip(names, found, strict=True):
            assert f"{name} is shorter than 16 bytes" in message.msg
            assert "weak" not in message.msg
        lines = [line for line in said.getvalue().splitlines() if "shorter than 16 bytes" in line]
        assert [line.split()[2] for line in lines] == names


STRONG = "a key that nobody guesses, of more than fifty characters: 0123456789"


class TestDeployment:
    """What `check --deploy` has to say, and `check` hasn't."""

    @pytest.mark.parametrize("engine", ["cache", "cached_db"])
    def test_sessions(self, tmp_path: Path, engine: str) -> None:
        sessions = {"SESSION_ENGINE": f"django.contrib.sessions.backends.{engine}"}
        [message] = deployment(**sessions)
        assert message.id == "quickcache.W001"
        assert "CACHES['default']" in message.msg
        assert "shared://" in str(message.hint)
        assert deployment({"LOCATION": f"shared://{tmp_path}/c"}, **sessions) == []
        assert deployment(**sessions, SESSION_CACHE_ALIAS="other") == []
        assert deployment(**sessions, INSTALLED_APPS=["quickcache_django"]) == []
        assert deployment(SESSION_ENGINE="django.contrib.sessions.backends.db") == []

    @pytest.mark.parametrize("as_text", [False, True])
    def test_throttles(self, tmp_path: Path, as_text: bool) -> None:
        from rest_framework.throttling import AnonRateThrottle

        throttle = "rest_framework.throttling.AnonRateThrottle" if as_text else AnonRateThrottle
        rest = {"REST_FRAMEWORK": {"DEFAULT_THROTTLE_CLASSES": [throttle]}}
        [message] = deployment(**rest)
        assert message.id == "quickcache.W002"
        assert "shared://" in str(message.hint)
        assert deployment({"LOCATION": f"shared://{tmp_path}/c"}, **rest) == []
        for other in ({}, {"DEFAULT_THROTTLE_CLASSES": ["no.such.Throttle", f"{__name__}.Subclass"]}, None):
            assert deployment(REST_FRAMEWORK=other) == []

    @pytest.mark.parametrize("secret", ["django-insecure-" + STRONG, "short, but enough", "x" * 100])
    def test_a_secret_that_can_be_guessed(self, tmp_path: Path, secret: str) -> None:
        """Where it signs what others may be able to write; of memory scope nobody else can."""
        shared = {"LOCATION": f"shared://{tmp_path}/c"}
        [message] = deployment(shared, SECRET_KEY=secret)
        assert message.id == "quickcache.W006"
        assert "SECRET_KEY, which" in message.msg
        assert secret not in message.msg
        [message] = deployment(shared, SECRET_KEY_FALLBACKS=[STRONG, secret])
        assert "SECRET_KEY_FALLBACKS[1]" in message.msg
        assert deployment({}, SECRET_KEY=secret) == []
        for options in ({"SERIALIZER": "json"}, {"SECRET": "one of its own, " + STRONG}):
            assert deployment({**shared, "OPTIONS": options}, SECRET_KEY=secret) == []

    def test_no_secret(self, tmp_path: Path) -> None:
        """Django says that itself."""
        assert deployment({"LOCATION": f"shared://{tmp_path}/c"}, SECRET_KEY="") == []

    def test_only_for_deployment(self) -> None:
        """A developer with one process has no use for it."""
        with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache", SECRET_KEY="short"):
            assert run_checks(tags=[Tags.caches]) == []
            assert ids(run_checks(tags=[Tags.caches], include_deployment_checks=True)) == ["W001"]

    def test_errors_come_first(self) -> None:
        """Nothing is said about an alias that won't work."""
        with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache"):
            assert deployment({"OPTIONS": {"MAX_SIZE": 0}}) == []


def deployment(entry: dict[str, Any] | None = None, **settings: Any) -> list[CheckMessage]:
    caches = {"default": {"BACKEND": BACKEND, **(entry or {})}, "other": {"BACKEND": LOCMEM}}
    with override_settings(**{"SECRET_KEY": STRONG, "CACHES": caches, **settings}):
        return check_deployment(None)


def alone(location: str) -> list[str]:
    """The ids of our checks, without Django's own, which make the cache."""
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": location}}):
        return ids(check_caches(None))


def ids(messages: list[CheckMessage]) -> list[str]:
    return [str(message.id).removeprefix("quickcache.") for message in messages]


def test_every_id_is_documented() -> None:
    """Each id has a row on the page of the checks, with its remedy, and a test; no page has others."""
    package = Path(conf.__file__).parent
    in_code = {one for path in package.rglob("*.py") for one in IDS.findall(path.read_text(encoding="utf-8"))}
    assert in_code == {
        value
        for module in (conf, checks)
        for name, value in vars(module).items()
        if name.isupper() and IDS.fullmatch(str(value))
    }
    rows = [
        line.split("|") for line in CHECKS.read_text(encoding="utf-8").splitlines() if line.startswith("| `q")
    ]
    assert [row[1].strip(" `") for row in rows] == sorted(in_code)
    assert all(len(row) == 5 and row[2].strip() and row[3].strip() for row in rows)
    pages = (*CHECKS.parent.glob("*.md"), CHECKS.parents[1] / "README.md")
    assert {one for page in pages for one in IDS.findall(page.read_text(encoding="utf-8"))} == in_code
    tested = Path(__file__).read_text(encoding="utf-8")
    assert all(one.removeprefix("quickcache.") in tested for one in in_code)
