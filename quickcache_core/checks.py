"""What plain settings may be.

Each check raises `ConfigError` with the name, the value and what is accepted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from quickcache_core.errors import ConfigError, InvalidTTL
from quickcache_core.ttl import seconds


def integer(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(name, value, f"give an integer from {least} to {most}")


def number(name: str, value: object, what: str, least: float, most: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(name, value, f"give {what} from {least:g} to {most:g}")


def default_ttl(name: str, value: object) -> None:
    if value is None:
        return
    try:
        seconds(value, name)
    except InvalidTTL as error:
        raise ConfigError(
            name, value, "give seconds or a timedelta above 0, or None or NEVER for no end"
        ) from error


def duration(name: str, value: object) -> None:
    try:
        seconds(value, name)
    except InvalidTTL as error:
        raise ConfigError(name, value, "give seconds or a timedelta, 0, or NEVER for no limit") from error


def boolean(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(name, value, "give True or False")


def name(field: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigError(field, value, "give a name as a string, or None")


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(name, value, f"give {' or '.join(map(repr, choices))}")


def filename(name: str, value: object) -> None:
    if not isinstance(value, str) or value in ("", ".", "..") or {"/", os.sep, "\0"} & set(value):
        raise ConfigError(name, value, "give a file name without directory and extension")


def directory(name: str, value: object) -> Path | None:
    """The path, made absolute; None if there is no home directory to put a default one in."""
    if value is None:
        return _user_cache_directory()
    try:
        if not value:
            raise ValueError("empty")
        path = Path(value).expanduser()  # type: ignore[arg-type]
        # Made absolute now: a later change of the working directory must not move the files. Not resolve(): a
        # symbolic link stays what the user named.
        return path if path.is_absolute() else Path.cwd() / path
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            name, value, f"give a path ({error}), or None for the user's cache directory"
        ) from error


def _user_cache_directory() -> Path | None:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The standard says that a relative path there is to be ignored.
    if base.is_absolute():
        return base / "quickcache"
    try:
        return Path.home() / ".cache" / "quickcache"
    except RuntimeError:
        # A user without a home, as in some containers. It matters only when a file is to be written there.
        return None


def clock(name: str, value: Any) -> None:
    try:
        if all(isinstance(now, int | float) for now in (value.monotonic(), value.wall())):
            return
    except (AttributeError, TypeError):
        pass
    raise ConfigError(name, value, "give an object whose methods monotonic() and wall() return seconds")
