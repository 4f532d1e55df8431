"""One request for a cached view, and the call of the view that it may need."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, current_app
from flask.sessions import SessionMixin
from werkzeug.datastructures import EnvironHeaders
from werkzeug.exceptions import HTTPException
from werkzeug.utils import cached_property

from quickcache_core.http import Snapshot, for_whole_page
from quickcache_flask.backend import QuickCache
from quickcache_flask.surroundings import Surroundings

if TYPE_CHECKING:
    from quickcache_flask.views import Cached

try:
    # The proxies take more time than all the rest of finding a key.
    from flask.globals import _cv_request as _context
except ImportError:
    # Flask 3.2 has one context for both.
    from flask.globals import _cv_app as _context  # type: ignore[assignment]

current_context = _context


class Visit:
    """A request that goes further than a look at the cache; a `quickcache_core.http.Visit`."""

    def __init__(
        self,
        cached: Cached,
        backend: QuickCache,
        request: Request,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        is_nobody: bool,
    ) -> None:
        self._cached = cached
        self._backend = backend
        self._request = request
        self.args = args
        self.kwargs = kwargs
        self.environ: Mapping[str, Any] = request.environ
        self._thread = threading.get_ident()
        self._is_nobody = is_nobody
        """Whether nothing in the key tells the user from others."""
        self._has_flashes = False

    def begin(self, *, is_behind: bool) -> tuple[str, ...]:
        self._is_behind = is_behind
        # Who looked before the view may have left there what the view shows: `current_user`, `g.user`. With
        # `user` pages differ by it.
        was_seen = not self._cached.pages.rules.by_user and bool(getattr(_session(), "accessed", False))
        self._looked_into_session = was_seen
        self._surroundings = Surroundings(self._request, self._cached.g)
        return tuple(self._backend._own_tags(self._cached.tags(self._request)))

    def call(self) -> Response:
        if self._is_behind or threading.get_ident() != self._thread:
            # The request may be over.
            with self._surroundings.entered():
                return self._called()
        if self._request.method == "GET":
            return self._called()
        with _as_get(self._request):
            return self._called()

    async def acall(self) -> Response:
        return self.call()

    def _called(self) -> Response:
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        session = _session()
        # Those whose class says so for good don't notice.
        is_reset = getattr(session, "accessed", False) and not getattr(type(session), "accessed", False)
        if session is not None and is_reset:
            session.accessed = False
        try:
            try:
                given = app.ensure_sync(self._cached.view)(*self.args, **self.kwargs)
            except HTTPException as error:
                if error.code not in self._cached.pages.rules.statuses:
                    raise
                # As Flask goes on with it.
                given = app.handle_http_exception(error)
                if isinstance(given, HTTPException):
                    given = given.get_response()
            return app.make_response(given)
        finally:
            self._looked_into_session |= bool(getattr(session, "accessed", False)) or _may_be_seen(session)
            # What is flashed is for one request, also of a user who has pages of his own.
            self._has_flashes = bool(getattr(_context.get(), "flashes", None))
            if session is not None and is_reset:
                session.accessed = True

    def taken(self, response: Response) -> Snapshot | None:
        if response.is_streamed or response.direct_passthrough or self._has_flashes:
            return None
        if self._looked_into_session and self._is_nobody:
            return None
        return Snapshot(response.status_code, list(response.headers.items()), response.get_data())


@contextmanager
def _as_get(request: Request) -> Iterator[None]:
    """Has the request be a GET of the whole page meanwhile.

    In the same context: another one would be torn down with what there is in `g`, which the request goes on
    with.
    """
    made = copy(request)
    made.method = "GET"
    made.environ = for_whole_page(request.environ)
    made.headers = EnvironHeaders(made.environ)
    for name in [name for name in vars(made) if isinstance(getattr(type(made), name, None), cached_property)]:
        # As found in the other environment.
        vars(made).pop(name)
    fields = vars(_context.get())
    # The first is that of Flask 3.2.
    place = "_request" if "_request" in fields else "request"
    fields[place] = made
    try:
        yield
    finally:
        fields[place] = request


def _session() -> SessionMixin | None:
    """The session, without a look into it: the proxy `flask.session` would count as one."""
    fields = vars(_context.get())
    found: SessionMixin | None = fields.get("_session")
    return fields.get("session") if found is None else found


def _may_be_seen(session: SessionMixin | None) -> bool:
    """Before Flask 3.1.3 `in`, `len` and loops count as no look into a session; something has to be in it,
    though, to tell anything of its visitor.
    """
    is_noticed = isinstance(getattr(type(_context.get()), "session", None), property)
    return not is_noticed and bool(session)
