"""What is said to those who come from another cache."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quickcache_core import FIELDS, ConfigError, QuickCacheConfig, nearest_option
from quickcache_core.location import read_location
from quickcache_core.moving import FORMER, WITHOUT_EFFECT, former_option, meant_elsewhere

PAGE = Path(__file__).parents[2] / "docs" / "moving.md"


@pytest.mark.parametrize(
    ("location", "write"),
    [
        ("/var/tmp/cache", "'shared:///var/tmp/cache'"),
        ("./cache", f"'shared://{Path.cwd()}/cache'"),
        ("../cache", f"'shared://{Path.cwd().parent}/cache'"),
        ("~/cache", f"'shared://{Path('~/cache').expanduser()}'"),
        ("~nobody that is known/cache", "'shared://' and its absolute path"),
        (r"C:\temp\cache", "'shared://' and its absolute path, on Linux"),
        ("c:/temp/cache", "'shared://' and its absolute path, on Linux"),
        (r"\\server\cache", "'shared://' and its absolute path, on Linux"),
        ("localhost:6379", "'redis://localhost:6379'"),
        ("127.0.0.1:6379:1", "'redis://127.0.0.1:6379/1'"),
        ("cache:6379/2", "'redis://cache:6379/2'"),
        ("[::1]:7000", "'redis://[::1]:7000'"),
        ("127.0.0.1:11211", "which memcached is not, write 'redis://127.0.0.1:6379'"),
        ("10.0.0.1:11211;10.0.0.2:11211", "'redis://10.0.0.1:6379,redis://10.0.0.2:6379'"),
        ("10.0.0.1:6379, 10.0.0.2:6379", "'redis://10.0.0.1:6379,redis://10.0.0.2:6379'"),
        ("unix:/run/valkey.sock", "'unix:///run/valkey.sock'"),
        ("unix:/tmp/memcached.sock", "which memcached is not"),
        (["10.0.0.1:11211", "10.0.0.2:7000"], "'redis://10.0.0.1:6379,redis://10.0.0.2:7000'"),
    ],
)
def test_location_that_is_a_place(location: str | list[str], write: str) -> None:
    """A path or an address is recognised, and the remedy is a location that does what was meant."""
    remedy = meant_elsewhere(location)
    assert write in str(remedy)
    assert ("memory://" in str(remedy)) == isinstance(location, str)
    for url in re.findall(r"'(shared:///[^']+|redis://[^']+|unix://[^']+)'", str(remedy)):
        assert read_location(url).scope != "memory"


@pytest.mark.parametrize(
    "location",
    [
        "",
        "shop",
        "shop:1",
        "shop:2024",
        "shop/pages",
        "v1.2",
        "a, b",
        "~",
        "memory:///var/tmp/cache",
        "memory://localhost:6379",
        "shared:///var/tmp/cache",
        "redis://localhost:6379",
        "unix-latecache",
        [],
        ["shop", "localhost:6379"],
        [5],
        5,
        None,
        Path("/var/tmp/cache"),
    ],
)
def test_location_that_is_none(location: object) -> None:
    """What may well be a name is left alone, and so is what says its scope."""
    assert meant_elsewhere(location) is None


def test_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A doubt about a location is no reason for a server not to start."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "'shared:///var/tmp/cache'" in str(meant_elsewhere("/var/tmp/cache"))
    assert "'shared://' and its absolute path" in str(meant_elsewhere("./cache"))


def test_passwords_are_not_shown() -> None:
    """An address may have one in it."""
    assert "s3cret" not in str(meant_elsewhere("user:s3cret@localhost:6379"))
    assert "'redis://' before it" in str(meant_elsewhere("user:s3cret@localhost:6379"))


@pytest.mark.parametrize("location", ["team@shop", "/srv/shop:7@cache", "~ada/a:b@c", "memory://a:b@c"])
def test_name_with_an_at_sign(location: str) -> None:
    """Is one, if there is nothing that may be a password; and so is what says that it is one."""
    assert read_location(location).scope == "memory"


@pytest.mark.parametrize(
    ("location", "remedy"),
    [
        ("shared:/var/tmp/cache", "'shared://' and the absolute path"),
        ("unix:/tmp/memcached.sock", "which memcached is not, write 'unix:///tmp/memcached.sock'"),
    ],
)
def test_slash_that_is_missing(location: str, remedy: str) -> None:
    """Of a scope that workers share: each would have a cache of its own."""
    with pytest.raises(ConfigError) as raised:
        QuickCacheConfig(location=location)
    assert remedy in raised.value.remedy


def test_list_of_addresses() -> None:
    """As memcached's backends have it: no location at all, with the same remedy."""
    with pytest.raises(ConfigError, match=r"write 'redis://127\.0\.0\.1:6379'"):
        QuickCacheConfig(location=["127.0.0.1:6379"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMER)
def test_former_option(name: str) -> None:
    """None is one of ours; the remedy names ours, as they are written there, or says that there is none."""
    assert name not in FIELDS
    fields = re.findall(r"\{(\w+)\}", FORMER[name])
    assert set(fields) <= set(FIELDS)
    assert fields or "there is none" in FORMER[name] or "arranged" in FORMER[name]
    remedy = nearest_option(name.upper(), [field.upper() for field in FIELDS])
    assert remedy == former_option(f"CACHE_{name}", str.upper)
    assert all(field.upper() in remedy for field in fields)
    assert "{" not in remedy
    with pytest.raises(ConfigError) as raised:
        QuickCacheConfig.from_mapping({name: "s3cret"})
    assert raised.value.remedy == f"unknown option; {former_option(name, str)}"
    assert "s3cret" not in str(raised.value)


def test_mistyped_option_of_ours() -> None:
    """Still gets the nearest one."""
    assert nearest_option("SOFT_TIMOUT") == "did you mean 'soft_timeout'?"
    assert nearest_option("Threshold", ["threshold"]) == "did you mean 'threshold'?"


def test_serializer_of_django_redis() -> None:
    """By its path: ours are named."""
    with pytest.raises(ConfigError, match="give 'json' or 'msgpack' or 'pickle'"):
        QuickCacheConfig(serializer="django_redis.serializers.json.JSONSerializer")


def test_page_has_the_same() -> None:
    """Each option has one row on the page, which names the same options of ours; the page has no others."""
    text = PAGE.read_text(encoding="utf-8").partition("## Options that are no more")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    found = {}
    for _, names, here, _ in rows:
        for name in re.findall(r"`([A-Z_]+)`", names):
            assert name not in found
            found[name.lower().removeprefix("cache_")] = here
    assert found.keys() == FORMER.keys() | {"serializer"}
    for name, meaning in FORMER.items():
        for field in re.findall(r"\{(\w+)\}", meaning):
            assert f"`{field.upper()}`" in found[name], (name, field)
        assert ("none" in found[name] or "no such option" in found[name]) >= ("there is none:" in meaning)


def test_settings_without_effect() -> None:
    """Each is a setting of Flask-Caching's that has a remedy."""
    assert all(former_option(name, str) for name in WITHOUT_EFFECT)
    assert all(name.startswith("CACHE_") for name in WITHOUT_EFFECT)
