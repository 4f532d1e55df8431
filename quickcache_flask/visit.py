"""One request for a cached view, and the call of the view that it may need."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, current_app, g
from flask.sessions import SessionMixin
from werkzeug.exceptions import HTTPException

from quickcache_core.http import Snapshot, for_whole_page
from quickcache_flask.backend import QuickCache

if TYPE_CHECKING:
    from quickcache_flask.views import Cached

try:
    # The proxies take more time than all the rest of finding a key.
    from flask.globals import _cv_request as _context
except ImportError:
    # Flask 3.2 has one context for both.
    from flask.globals import _cv_app as _context  # type: ignore[assignment]

current_context = _context
_NOT_COPIED = ("werkzeug.", "flask.")


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
        self._surroundings = Surroundings(self._request)
        return tuple(self._backend._own_tags(self._cached.tags(self._request)))

    def call(self) -> Response:
        is_here = not self._is_behind and threading.get_ident() == self._thread
        if is_here and self._request.method == "GET":
            return self._called()
        # In a background thread, when the request may be over; or for a HEAD, which is served from a GET.
        with self._surroundings.entered():
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


class Surroundings:
    """What a view finds around it, for a call in another thread, or in place of a HEAD: a copy of the request
    and of `g`. No function of `before_request` runs again, none of `after_request` sees the response.
    """

    def __init__(self, request: Request) -> None:
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
        self._g = dict(vars(g._get_current_object()))

    @contextmanager
    def entered(self) -> Iterator[None]:
        with self._app.app_context() as context:
            vars(context.g).update(self._g)
            with self._app.request_context(self._environ):
                yield


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
