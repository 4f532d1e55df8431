"""What a view finds around it when it is called behind a request, or beside it, in another thread."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from functools import cache
from io import BytesIO
from typing import Any
from uuid import UUID

from flask import Flask, Request, current_app, g
from flask.globals import app_ctx

from quickcache_core.http import for_whole_page

_NOT_COPIED = ("werkzeug.", "flask.")

_VALUES = (type(None), int, float, complex, str, bytes, date, time, timedelta, tzinfo, Decimal, UUID, Enum)
"""Nothing to be closed, and never changed. `bool` and `datetime` are among them."""


class Surroundings:
    """A copy of the request, and of the data in `g`. No function of `before_request` runs again, none of
    `after_request` sees the response; teardown functions run.

    Anything else in `g` stays with the request, which closes it, hands it back to its pool, or uses it in its
    own thread: a connection, say, or an object that holds on to one. A call makes its own, as it would in
    a request that comes first. What it asks for without making it, it takes for something that isn't there,
    such as a user; what it gives then is not to be kept.

    `names`: what of `g` is handed over as it is. Teardown functions don't find it.
    """

    def __init__(self, request: Request, names: Collection[str] = ()) -> None:
        self._app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        self._environ = {
            **{
                name: value
                for name, value in for_whole_page(request.environ).items()
                if not name.startswith(_NOT_COPIED)
            },
            "wsgi.input": BytesIO(),
            "CONTENT_LENGTH": "0",
        }
        self._data: dict[str, Any] = {}
        self._lent: dict[str, Any] = {}
        here: Any = g._get_current_object()
        # What isn't there where this is called behind a request itself isn't there for whoever comes after.
        self._left: set[str] = set(getattr(here, "_quickcache_left", ()))
        for name, value in vars(here).items():
            if name in names:
                self._lent[name] = value
                continue
            try:
                self._data[name] = _copied(value)
            except (_IsNoData, RuntimeError):  # or it contains itself, or another thread is changing it
                self._left.add(name)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Raises `RuntimeError` at the end if something was asked for that stays with the request."""
        with self._app.app_context(), self._app.request_context(self._environ):
            context = app_ctx._get_current_object()  # type: ignore[attr-defined]
            there = {**vars(context.g), **self._data, **self._lent}
            context.g = _with_absent(context.g, there, self._left)
            try:
                yield
            finally:
                for name, value in self._lent.items():
                    if _is_still_there(context.g, name, value):
                        delattr(context.g, name)
            asked = context.g._quickcache_asked
            if asked:
                raise RuntimeError(_remedy(min(asked)))


def _is_still_there(namespace: Any, name: str, value: Any) -> bool:
    """Whether it is still that very object."""
    fields = vars(namespace)
    return name in fields and fields[name] is value


def _remedy(name: str) -> str:
    return (
        f"g.{name} stays with the request that this is called behind: it is no plain data, and may be closed "
        f"by now. Make it where it is asked for; or have cached_view hand it over, with g=[{name!r}], if "
        "threads may share it and it outlives a request"
    )


class _Absent:
    """Beside the class of `g`: notes what is asked for of what stays with the request, until it is made.

    An error at once would be too early: `if "db" not in g` asks before it makes one.
    """

    _quickcache_left: set[str]
    _quickcache_asked: set[str]

    def _quickcache_ask(self, name: str) -> None:
        if name in self._quickcache_left:
            self._quickcache_asked.add(name)

    def _quickcache_made(self, name: str) -> None:
        self._quickcache_left.discard(name)
        self._quickcache_asked.discard(name)

    def __getattr__(self, name: str) -> Any:
        self._quickcache_ask(name)
        if name in self._quickcache_left:
            raise AttributeError(_remedy(name))
        return super().__getattr__(name)  # type: ignore[misc]

    def __setattr__(self, name: str, value: Any) -> None:
        self._quickcache_made(name)
        super().__setattr__(name, value)

    def __contains__(self, name: str) -> bool:
        self._quickcache_ask(name)
        return super().__contains__(name)  # type: ignore[misc,no-any-return]

    def get(self, name: str, *default: Any, **options: Any) -> Any:
        self._quickcache_ask(name)
        return super().get(name, *default, **options)  # type: ignore[misc]

    def pop(self, name: str, *default: Any, **options: Any) -> Any:
        self._quickcache_ask(name)
        return super().pop(name, *default, **options)  # type: ignore[misc]

    def setdefault(self, name: str, *default: Any, **options: Any) -> Any:
        self._quickcache_made(name)
        return super().setdefault(name, *default, **options)  # type: ignore[misc]


def _with_absent(namespace: Any, there: dict[str, Any], left: set[str]) -> Any:
    own: Any = type(namespace)
    kind = _kind_with_absent(own)
    made = kind.__new__(kind)
    object.__setattr__(made, "_quickcache_left", left - there.keys())
    object.__setattr__(made, "_quickcache_asked", set())
    vars(made).update(there)
    return made


@cache
def _kind_with_absent(kind: type) -> Any:
    # In slots, so that nobody comes across them who looks at what there is in `g`.
    return type(kind.__name__, (_Absent, kind), {"__slots__": ("_quickcache_asked", "_quickcache_left")})


class _IsNoData(Exception):
    pass


def _copied(value: Any) -> Any:
    """Plain data, of which nothing is shared that can be changed. Raises `_IsNoData`."""
    # Not `isinstance`, for which a proxy is what it stands for.
    kind = type(value)
    if issubclass(kind, _VALUES):
        return value
    if kind is dict:
        return {_copied(key): _copied(one) for key, one in value.items()}
    if kind in (list, tuple, set, frozenset):
        return kind(map(_copied, value))
    # Named tuples, and what Flask's tutorial has for a user.
    rows = getattr(sys.modules.get("sqlite3"), "Row", tuple)
    if issubclass(kind, tuple | rows) and all(issubclass(type(one), _VALUES) for one in value):
        return value
    raise _IsNoData
