"""Settings: where they may stand, what they become, and what is said of wrong ones at `init_app`."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask
from flask_caching import Cache

from quickcache_core import FIELDS, NEVER, CacheLoadError, ConfigError, QuickCacheConfig, QuickCacheError
from quickcache_core.testing import ManualClock
from quickcache_flask import QuickCache
from quickcache_flask.cli import quickcache


class Example(NamedTuple):
    good: Any
    bad: Any


SECRET = "a secret of more than sixteen bytes"
EXAMPLES = {
    "max_size": Example(7, 0),
    "max_bytes": Example("1MB", "much"),
    "oversized": Example("skip", "drop"),
    "auto_resize": Example(True, 1),
    "sliding": Example(True, "yes"),
    "max_age": Example(3600, 0),
    "stale_ttl": Example(timedelta(hours=1), -1),
    "retry_after": Example(2.5, None),
    "soft_timeout": Example(0.2, "soon"),
    "hard_timeout": Example(5, 0),
    "refresh_ahead": Example(0.8, 1),
    "jitter": Example(0.1, 1),
    "skip_none": Example(True, 1),
    "single_flight": Example(False, 0),
    "lease": Example(7.5, 0),
    "background_context": Example(nullcontext, "contextlib.nullcontext"),
    "version": Example("5.1", 5),
    "near_size": Example(7, -1),
    "fail": Example("raise", "loudly"),
    "default_ttl": Example(7.5, -1),
    "cleanup_interval": Example(2.5, 0),
    "eviction_policy": Example("lru", "lur"),
    "serializer": Example("json", "jsn"),
    "location": Example("settings", "redis://host/db"),
    "redis_prefix": Example("shop", ""),
    "redis_options": Example({"password": "a password"}, ["password"]),
    "isolation": Example("share", "deep"),
    "immutable_types": Example((Path,), 5),
    "cull_fraction": Example(0.5, 2.0),
    "storage_dir": Example(Path("/nowhere"), ""),
    "filename": Example("snapshot", "a/b"),
    "cache_timestamps": Example(True, "yes"),
    "enable_metrics": Example(False, 1),
    "publish_as": Example("shop", 5),
    "metrics_serializer": Example("pickle", "pckl"),
    "metrics_storage_dir": Example(Path("/nowhere"), 5),
    "metrics_filename": Example("figures", ""),
    "cache_metrics_timestamps": Example(True, None),
    "secret": Example(SECRET, "short"),
    "secret_fallbacks": Example((SECRET,), SECRET),
    "allow_unsigned_pickle": Example(True, "no"),
    "compression": Example("zlib", "gzip"),
    "enabled": Example(False, "no"),
    "clock": Example(ManualClock(), object()),
}
every_field = pytest.mark.parametrize("field", FIELDS)


def init_app(app: Flask, **config: Any) -> QuickCache:
    cache = Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache", **config})
    backend = app.extensions["cache"][cache]
    assert isinstance(backend, QuickCache)
    return backend


def options(field: str, value: Any) -> dict[str, Any]:
    # Fallbacks are looked at together with a secret.
    return {field: value, "secret": SECRET} if field == "secret_fallbacks" else {field: value}


def as_settings(settings: dict[str, Any]) -> dict[str, Any]:
    return {f"CACHE_QUICKCACHE_{field.upper()}": value for field, value in settings.items()}


def test_each_field_has_an_example() -> None:
    """These tests walk all fields of the core."""
    assert set(EXAMPLES) == set(FIELDS)


@every_field
def test_field_in_cache_options(app: Flask, field: str) -> None:
    """Each field of the core is a key of CACHE_OPTIONS."""
    given = EXAMPLES[field].good
    backend = init_app(app, CACHE_OPTIONS=options(field, given))
    read = getattr(backend.engine.config, field)
    assert set(given) <= set(read) if field == "immutable_types" else read == given


@every_field
def test_field_as_a_setting(app: Flask, field: str) -> None:
    """Each field of the core is a setting CACHE_QUICKCACHE_<FIELD> of the app."""
    given = EXAMPLES[field].good
    app.config.update(as_settings(options(field, given)))
    read = getattr(init_app(app).engine.config, field)
    assert set(given) <= set(read) if field == "immutable_types" else read == given


@every_field
def test_wrong_value(app: Flask, field: str) -> None:
    """A wrong value is an error at `init_app` that names the setting as written, the value and the remedy."""
    bad = EXAMPLES[field].bad
    with pytest.raises(ConfigError) as in_core:
        QuickCacheConfig(**options(field, bad))
    for name, config in (
        (f'CACHE_OPTIONS["{field}"]', {"CACHE_OPTIONS": options(field, bad)}),
        (f"CACHE_QUICKCACHE_{field.upper()}", as_settings(options(field, bad))),
    ):
        with pytest.raises(ConfigError) as raised:
            init_app(app, **config)
        assert raised.value.field == name
        assert str(raised.value).startswith(f"{name}=")
        assert raised.value.remedy == in_core.value.remedy
        if field.startswith("secret") or field == "redis_options":
            assert str(bad) not in str(raised.value)
        else:
            assert raised.value.value == bad


def test_value_in_an_error_is_the_one_given(app: Flask) -> None:
    """An error shows what the app wrote, not what the backend made of it."""
    with pytest.raises(ConfigError) as raised:
        init_app(app, CACHE_OPTIONS={"immutable_types": [Path, "Path"]})
    assert raised.value.value == [Path, "Path"]


@every_field
def test_field_given_twice(app: Flask, field: str) -> None:
    """Both ways with the same value are fine; with different ones it is an error that names both."""
    good = EXAMPLES[field].good
    init_app(app, CACHE_OPTIONS=options(field, good), **as_settings({field: good}))
    with pytest.raises(ConfigError) as raised:
        init_app(app, CACHE_OPTIONS=options(field, good), **as_settings({field: "something else"}))
    assert f"CACHE_QUICKCACHE_{field.upper()}=" in str(raised.value)
    assert f'CACHE_OPTIONS["{field}"] is' in raised.value.remedy
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("config", "name", "hint"),
    [
        ({"CACHE_OPTIONS": {"max_sizee": 5}}, 'CACHE_OPTIONS["max_sizee"]', "did you mean 'max_size'?"),
        ({"CACHE_OPTIONS": {"MAX_SIZE": 5}}, 'CACHE_OPTIONS["MAX_SIZE"]', "did you mean 'max_size'?"),
        ({"CACHE_OPTIONS": {"treshold": 5}}, 'CACHE_OPTIONS["treshold"]', "did you mean 'threshold'?"),
        ({"CACHE_OPTIONS": {"mode": 5}}, 'CACHE_OPTIONS["mode"]', "leave it out: there is none"),
        ({"CACHE_OPTIONS": {5: 5}}, 'CACHE_OPTIONS["5"]', "there are "),
        ({"CACHE_QUICKCACHE_MAX_SIZEE": 5}, "CACHE_QUICKCACHE_MAX_SIZEE", "did you mean 'MAX_SIZE'?"),
        ({"CACHE_QUICKCACHE_max_size": 5}, "CACHE_QUICKCACHE_max_size", "did you mean 'MAX_SIZE'?"),
        ({"CACHE_QUICKCACHE_XYZ": 5}, "CACHE_QUICKCACHE_XYZ", "there are "),
        (
            {"CACHE_QUICKCACHE_THRESHOLD": 5},
            "CACHE_QUICKCACHE_THRESHOLD",
            "after CACHE_QUICKCACHE_, write MAX_SIZE; CACHE_THRESHOLD stays",
        ),
    ],
)
def test_unknown_name(app: Flask, config: dict[str, Any], name: str, hint: str) -> None:
    """A name that doesn't exist is an error that suggests the nearest, or lists all."""
    with pytest.raises(ConfigError) as raised:
        init_app(app, **config)
    assert (raised.value.field, raised.value.value) == (name, 5)
    assert hint in raised.value.remedy


def test_value_of_an_unknown_option_may_be_a_secret(app: Flask) -> None:
    """What stands under a wrong name is not shown, as it may be a secret, unless it is a number."""
    for config in ({"CACHE_OPTIONS": {"secrett": SECRET}}, {"CACHE_QUICKCACHE_SECRETT": SECRET}):
        with pytest.raises(ConfigError, match=r"(?i)did you mean 'secret'") as raised:
            init_app(app, **config)
        assert SECRET not in repr(vars(raised.value))


def test_defaults(app: Flask) -> None:
    """Without settings: Flask-Caching's defaults for size and timeout, and isolated values."""
    config = init_app(app).engine.config
    assert (config.max_size, config.default_ttl, config.isolation, config.serializer, config.location) == (
        500,
        300,
        "auto",
        "pickle",
        "",
    )


@pytest.mark.parametrize(
    ("config", "max_size", "default_ttl"),
    [
        ({"CACHE_THRESHOLD": 7, "CACHE_DEFAULT_TIMEOUT": 8}, 7, 8),
        ({"CACHE_OPTIONS": {"threshold": 7, "default_timeout": 8}}, 7, 8),
        ({"CACHE_OPTIONS": {"max_size": 7, "default_ttl": 8}}, 7, 8),
        ({"CACHE_OPTIONS": {"max_size": 7, "default_ttl": None}}, 7, NEVER),
        ({"CACHE_OPTIONS": {"max_size": 7}, "CACHE_THRESHOLD": 7, "CACHE_DEFAULT_TIMEOUT": 0}, 7, NEVER),
        ({"CACHE_OPTIONS": {"default_ttl": timedelta(seconds=8)}, "CACHE_DEFAULT_TIMEOUT": 8}, 500, 8),
        ({"CACHE_OPTIONS": {"default_ttl": NEVER}, "CACHE_DEFAULT_TIMEOUT": 0}, 500, NEVER),
        ({"CACHE_THRESHOLD": 0}, 500, 300),
    ],
)
def test_size_and_timeout(app: Flask, config: dict[str, Any], max_size: int, default_ttl: Any) -> None:
    """Flask-Caching's names and those of the core mean the same; twice the same is fine."""
    read = init_app(app, **config).engine.config
    assert (read.max_size, read.default_ttl) == (max_size, default_ttl)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (
            {"CACHE_OPTIONS": {"max_size": 7}, "CACHE_THRESHOLD": 8},
            ('CACHE_OPTIONS["max_size"]', "CACHE_THRESHOLD"),
        ),
        (
            {"CACHE_QUICKCACHE_DEFAULT_TTL": 7, "CACHE_DEFAULT_TIMEOUT": 8},
            ("CACHE_QUICKCACHE_DEFAULT_TTL", "CACHE_DEFAULT_TIMEOUT"),
        ),
        (
            {"CACHE_OPTIONS": {"threshold": 500, "max_size": 7}},
            ('CACHE_OPTIONS["threshold"]', 'CACHE_OPTIONS["max_size"]'),
        ),
    ],
)
def test_contradiction(app: Flask, config: dict[str, Any], names: tuple[str, str]) -> None:
    """Different values under a name of Flask-Caching and one of the core are an error that names both."""
    with pytest.raises(ConfigError) as raised:
        init_app(app, **config)
    for name in names:
        assert name in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CACHE_THRESHOLD", -1),
        ("CACHE_THRESHOLD", "many"),
        ("CACHE_THRESHOLD", 7.5),
        ("CACHE_DEFAULT_TIMEOUT", -1),
        ("CACHE_DEFAULT_TIMEOUT", None),
        ("CACHE_DEFAULT_TIMEOUT", [5]),
        ("CACHE_KEY_PREFIX", 5),
    ],
)
def test_wrong_setting_of_flask_caching(app: Flask, name: str, value: Any) -> None:
    """Wrong values of Flask-Caching's own settings are named as such."""
    with pytest.raises(ConfigError) as raised:
        init_app(app, **{name: value})
    assert (raised.value.field, raised.value.value) == (name, value)


def test_positional_arguments(app: Flask) -> None:
    """None are taken. They aren't shown: RedisCache has a host, a port and a password there."""
    with pytest.raises(ConfigError, match="use CACHE_OPTIONS") as raised:
        init_app(app, CACHE_ARGS=["localhost", 6379, "s3cret"])
    assert raised.value.field == "CACHE_ARGS"
    assert "s3cret" not in f"{raised.value} {vars(raised.value)}"


def test_errors_come_from_init_app_and_survive_in_the_chain(app: Flask) -> None:
    """An app without the right settings has no cache; the core's own error is the cause."""
    with pytest.raises(ConfigError) as raised:
        init_app(app, CACHE_QUICKCACHE_MAX_SIZE=0)
    assert not app.extensions["cache"]
    assert isinstance(raised.value.__cause__, ConfigError)
    assert raised.value.__cause__.field == "max_size"


def test_made_without_an_app() -> None:
    """The class can be used by itself, with the names of Flask-Caching and of the core."""
    backend = QuickCache(2, 0, eviction_policy="fifo")
    backend.set_many({"a": 1, "b": 2, "c": 3})
    assert backend.get_many("a", "b", "c") == [None, 2, 3]
    assert backend.engine.ttl("b") is None
    assert QuickCache(threshold=0).engine.max_size == 500
    with pytest.raises(ConfigError, match=r"^max_sizee=.*did you mean 'max_size'"):
        QuickCache(max_sizee=5)
    with pytest.raises(ConfigError, match=r"^default_timeout=-1: "):
        QuickCache(default_timeout=-1)


def test_deprecated_argument() -> None:
    """Flask-Caching's deprecated `ignore_errors` still works, and warns."""
    with pytest.warns(DeprecationWarning, match="ignore_delete_many_errors"):
        backend = QuickCache(ignore_errors=True)
    assert backend.ignore_delete_many_errors is True


def test_settings_from_the_environment(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that `from_prefixed_env` reads arrive."""
    monkeypatch.setenv("FLASK_CACHE_QUICKCACHE_MAX_SIZE", "7")
    monkeypatch.setenv("FLASK_CACHE_QUICKCACHE_EVICTION_POLICY", "lru")
    app.config.from_prefixed_env()
    assert init_app(app).engine.config.max_size == 7


# Secrets


def test_secret_key_of_the_app_signs_snapshots(app: Flask, tmp_path: Path) -> None:
    """The app's secret key is used without asking, also when it is set after `init_app`."""
    backend = init_app(app, CACHE_OPTIONS={"storage_dir": tmp_path})
    app.secret_key = SECRET
    backend.set("key", {"a": {1}})
    path = backend.engine.save_to_disk()
    backend.clear()
    backend.engine.load_from_disk(path)
    assert backend.get("key") == {"a": {1}}

    app.secret_key = "another secret of more than sixteen bytes"
    with pytest.raises(CacheLoadError, match="signature"):
        backend.engine.load_from_disk(path)
    app.config["SECRET_KEY_FALLBACKS"] = [SECRET]
    backend.engine.load_from_disk(path)


@pytest.mark.parametrize("secret_key", [None, "dev"])
def test_app_without_a_good_secret_key(app: Flask, tmp_path: Path, secret_key: str | None) -> None:
    """Without a good secret key the cache works; only a snapshot that has to be signed fails."""
    app.secret_key = secret_key
    backend = init_app(app, CACHE_OPTIONS={"storage_dir": tmp_path})
    backend.set("key", "value")
    assert backend.get("key") == "value"
    with pytest.raises(QuickCacheError, match="secret"):
        backend.engine.save_to_disk()
    assert not list(tmp_path.iterdir())


def test_former_key_that_is_too_short(app: Flask, tmp_path: Path) -> None:
    """It can't have signed anything, and is left out."""
    app.secret_key = SECRET
    app.config["SECRET_KEY_FALLBACKS"] = ["old"]
    backend = init_app(app, CACHE_OPTIONS={"location": f"shared://{tmp_path}/c", "max_bytes": 4_000_000})
    backend.set("key", {"a": {1}})
    assert backend.get("key") == {"a": {1}}


def test_secret_of_the_cache_wins(app: Flask, tmp_path: Path) -> None:
    """`secret` is used in place of the app's key, and its fallbacks in place of the app's."""
    app.secret_key = "the app's secret, long enough"
    backend = init_app(app, CACHE_OPTIONS={"storage_dir": tmp_path, "secret": SECRET})
    assert backend.engine.config.secret == SECRET
    assert backend.engine.config.secret_fallbacks == ()


def test_apps_can_go(tmp_path: Path) -> None:
    """A cache doesn't keep an app alive that nobody uses any more."""
    import gc
    import weakref

    app = Flask("passing")
    init_app(app, CACHE_QUICKCACHE_LOCATION="stays")
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("config", "doubt"),
    [
        ({"CACHE_OPTIONS": {"location": "/var/tmp/cache"}}, "'shared:///var/tmp/cache'"),
        ({"CACHE_QUICKCACHE_LOCATION": "localhost:6379"}, "'redis://localhost:6379'"),
        ({"CACHE_REDIS_URL": "redis://:s3cret@localhost"}, 'write CACHE_OPTIONS["location"]'),
        ({"CACHE_REDIS_PASSWORD": "s3cret"}, 'the URL in CACHE_OPTIONS["location"]'),
        ({"CACHE_REDIS_SENTINEL_PASSWORD": "s3cret"}, "'sentinel_kwargs' in CACHE_OPTIONS"),
        ({"CACHE_MEMCACHED_SERVERS": ["10.0.0.1:11211"]}, "memcached isn't used"),
        ({"CACHE_DIR": "/var/tmp/cache", "CACHE_OPTIONS": {"location": "shop"}}, "'shared://' and the"),
    ],
)
def test_settings_left_behind(app: Flask, config: dict[str, Any], doubt: str) -> None:
    """What names another place, while the store is in memory: Python warns, and `flask quickcache check`."""
    with pytest.warns(UserWarning, match=re.escape(doubt)) as warned:
        init_app(app, **config)
    [warning] = warned
    assert "s3cret" not in str(warning.message)
    assert warning.filename == __file__
    result = app.test_cli_runner().invoke(quickcache, ["check"])
    assert result.exit_code == 0
    assert f"  warning  settings: {warning.message}" in result.output


@pytest.mark.parametrize("made", [lambda app: Cache(app), lambda app: Cache().init_app(app)])
def test_where_it_is_warned(app: Flask, made: Callable[[Flask], Any]) -> None:
    """Of the line of the app that makes the cache, not of one in Flask-Caching."""
    app.config.update(CACHE_TYPE="quickcache_flask.QuickCache", CACHE_DIR="/var/tmp/cache")
    with pytest.warns(UserWarning, match="CACHE_DIR") as warned:
        made(app)
    assert [(one.filename, one.lineno) for one in warned] == [(__file__, made.__code__.co_firstlineno)]


@pytest.mark.parametrize(
    "config",
    [
        {"CACHE_OPTIONS": {"location": "memory:///var/tmp/cache"}},
        {"CACHE_OPTIONS": {"location": "memory://"}, "CACHE_REDIS_URL": "redis://localhost"},
    ],
)
def test_memory_is_meant(app: Flask, config: dict[str, Any]) -> None:
    """A location that says so ends the warnings."""
    init_app(app, **config)


def test_settings_of_another_cache(app: Flask) -> None:
    """They belong to the app's own cache, of another type."""
    app.config.update(CACHE_TYPE="RedisCache", CACHE_REDIS_URL="redis://localhost")
    Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache"})
