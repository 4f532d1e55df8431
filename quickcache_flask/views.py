"""`@cached_view` for views of a Flask application: whole responses, with all that HTTP knows of caches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast
from urllib.parse import unquote_to_bytes, urlsplit

from flask import Request, Response, current_app
from flask_caching import Cache, cache_view_hit, cache_view_miss
from werkzeug.datastructures import Headers

from quickcache_core import ConfigError
from quickcache_core import QuickCache as Engine
from quickcache_core.fingerprint import module_name, stable_form
from quickcache_core.http import (
    NO_CONTENT,
    Outcome,
    Pages,
    answer,
    answer_at_hand,
    finished,
    form_of,
    has_content,
    read_rules,
)
from quickcache_core.loading.options import tag_names
from quickcache_flask.conf import ttl_of
from quickcache_flask.decorators import backend_of
from quickcache_flask.visit import Visit, current_context

_new: Any = object.__new__
_NOBODY = stable_form(None)

P = ParamSpec("P")

OfRequest = Callable[[Request], Any]
R = TypeVar("R", covariant=True)


class CachedView(Protocol[P]):
    """A view with its pages in front of it."""

    uncached: Callable[..., Any]
    """The view itself."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any: ...

    def invalidate(self, target: str | Request) -> None:
        """Forget the pages of a URL, for all hosts, users, languages and headers; also those that are being
        made. A URL without a query stands for all queries of its path.
        """

    def invalidate_all(self) -> None:
        """Forget all pages of the view."""


def cached_view(
    cache: Cache,
    timeout: float | timedelta | None = None,
    *,
    query: Collection[str] | bool = True,
    headers: Collection[str] = (),
    user: OfRequest | None = None,
    language: OfRequest | None = None,
    host: bool = True,
    statuses: Collection[int] = (200,),
    tags: Collection[str] | OfRequest = (),
    unless: OfRequest | None = None,
    g: Collection[str] = (),
    version: str | int | None = None,
    etag: bool = True,
    last_modified: bool = False,
    cache_control: bool = False,
    stale_directives: bool = False,
    x_cache: bool | str = False,
    **options: Any,
) -> Callable[[Callable[P, Any]], CachedView[P]]:
    """Keep the responses of a view, plain or `async def`, in a cache of Flask-Caching.

    Stands below `@app.route`. Only GET and HEAD without content are answered from the cache. What the
    responses to other requests, to those with an `Authorization` and to those that the session was looked
    into for would tell is not for everybody: without `user` they are not kept. Nor are responses that set a
    cookie, are streamed, or say `no-store`. `docs/views.md` has all of it, and a table of the options.

    Raises `ConfigError`, `TypeError` and `ValueError` here; requests raise what the view raises,
    `LoaderTimeout` with a `hard_timeout`, and `RuntimeError` if the backend isn't a QuickCache.
    """
    if not isinstance(cache, Cache):
        raise TypeError(f"cached_view({cache!r}): give the flask_caching.Cache of the application")
    for option, function in {"user": user, "language": language, "unless": unless}.items():
        if function is not None and not callable(function):
            raise ConfigError(option, function, "give a function of the request")
    ttl = None if timeout is None else ttl_of(timeout)
    is_kept = timeout is None or ttl is not None
    handed_over = _names_in_g(g)

    def decorate(view: Callable[P, Any]) -> CachedView[P]:
        rules = read_rules(
            ttl,
            query=query,
            headers=headers,
            host=host,
            statuses=statuses,
            by_user=user is not None,
            by_language=language is not None,
            etag=etag,
            last_modified=last_modified,
            cache_control=cache_control,
            stale_directives=stale_directives,
            x_cache=x_cache,
            version=version,
            options=options,
        )
        cached = Cached(cache, view, Pages(rules), user, language, tags, unless, is_kept, handed_over)
        return cast(CachedView[P], cached.decorated())

    return decorate


class Cached:
    """One view, and what was said of it."""

    def __init__(
        self,
        cache: Cache,
        view: Callable[..., Any],
        pages: Pages,
        user: OfRequest | None,
        language: OfRequest | None,
        tags: Collection[str] | OfRequest,
        unless: OfRequest | None,
        is_kept: bool,
        g: frozenset[str],
    ) -> None:
        self._cache = cache
        self.view = view
        self.pages = pages
        self._head = pages.rules.head(_name_of(view))
        self._user = user
        self._language = language
        self._tags: Any = tags if callable(tags) else tag_names("tags", tags)
        self._unless = unless
        self._is_kept = is_kept
        self.g = g
        """What a call behind a request gets of it beside data, by name."""

    def decorated(self) -> Any:
        made: Any = self._with_a_look_first()
        made.uncached = self.view
        made.invalidate = self.invalidate
        made.invalidate_all = self.invalidate_all
        return made

    def _with_a_look_first(self) -> Callable[..., Any]:
        """The view, with a look at the cache before it. What only a miss needs is in methods."""
        pages, cache = self.pages, self._cache
        rules = pages.rules
        head, key_of = self._head, rules.key
        extras = None if self._user is None and self._language is None else self._extras
        always_asks = not self._is_kept or self._unless is not None

        # A plain function also of an `async def` view: Flask gives each such view an event loop of its own,
        # in which no refresh would outlive the request, and which a hit has no need of.
        @wraps(self.view)
        def cached(*args: Any, **kwargs: Any) -> Any:
            context = current_context.get()
            request = context.request
            environ = request.environ
            if (
                always_asks
                or request.method != "GET"
                or "HTTP_AUTHORIZATION" in environ
                or environ.get("CONTENT_LENGTH") not in NO_CONTENT
                or "HTTP_TRANSFER_ENCODING" in environ
            ) and self._goes_past(request):
                return self._past(args, kwargs)
            try:
                backend = context.app.extensions["cache"][cache]
                prefix = backend.key_prefix
                engine = backend.engine
            except (KeyError, AttributeError):
                backend = backend_of(cache)  # which says what is wrong
                prefix, engine = backend.key_prefix, backend.engine
            if extras is None:
                differs_by: tuple[str, ...] = ()
            else:
                differs_by = extras(request)
                # Credentials by which `user` finds nobody, and the view perhaps somebody.
                if "HTTP_AUTHORIZATION" in environ and differs_by[0] == _NOBODY:
                    return self._past(args, kwargs)
            try:
                path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
            except KeyError:
                path = _path_in(environ)
            key = key_of(
                head,
                path,
                environ,
                environ["wsgi.url_scheme"],
                environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}",
                differs_by,
            )
            if prefix:
                key = prefix + key
            try:
                found = answer_at_hand(engine, key, rules, environ)
            except Exception as error:
                pages.report(error)
                return self._past(args, kwargs)
            if found.__class__ is tuple:
                if cache.enable_signals:
                    self._tell(True, key, args, kwargs)
                status, fields, body = found
                return _response(context.app.response_class, status, fields, body)
            # The user comes first there.
            is_nobody = self._user is None or differs_by[0] == _NOBODY
            return self._respond(engine, key, Visit(self, backend, request, args, kwargs, is_nobody), found)

        return cached

    def invalidate(self, target: str | Request) -> None:
        self._invalidate(self.pages.rules.tag(*_asked_for(target)))

    def invalidate_all(self) -> None:
        self._invalidate(self._head)

    def _invalidate(self, tag: str) -> None:
        backend_of(self._cache).invalidate_tags(tag)

    def tags(self, request: Request) -> tuple[str, ...]:
        own = self._tags
        if callable(own):
            own = tag_names("tags", own(request))
        return (*self.pages.rules.tags(self._head, *_asked_for(request)), *own)

    def _goes_past(self, request: Request) -> bool:
        """Whether the request has no business with the cache."""
        if not self._is_kept or request.method not in ("GET", "HEAD"):
            return True
        if has_content(request.environ):
            return True
        if "HTTP_AUTHORIZATION" in request.environ and not self.pages.rules.by_user:
            return True
        return self._unless is not None and bool(self._unless(request))

    def _extras(self, request: Request) -> tuple[str, ...]:
        given = (("user", self._user), ("language", self._language))
        return tuple(form_of(option, of(request)) for option, of in given if of is not None)

    def _past(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        app = current_app
        given = app.ensure_sync(self.view)(*args, **kwargs)
        name = self.pages.rules.x_cache
        if name is None:
            return given
        response = app.make_response(given)
        response.headers[name] = "BYPASS"
        return response

    def _respond(self, engine: Engine, key: str, visit: Visit, found: Any) -> Response:
        """With what isn't at hand: the view is called, or somebody else's call is waited for."""
        outcome = self.pages.respond(engine, key, visit, found)
        if self._cache.enable_signals:
            self._tell(outcome.label in ("HIT", "STALE"), key, visit.args, visit.kwargs)
        return self._completed(outcome, visit.environ, engine)

    def _completed(self, outcome: Outcome, environ: Mapping[str, Any], engine: Engine) -> Response:
        rules, page = self.pages.rules, outcome.page
        response: Response | None = outcome.response
        if response is None:
            kind: type[Response] = current_app.response_class
            return _response(kind, *answer(outcome.kept, rules, environ, engine, outcome.label))
        if page is None:
            if rules.x_cache is not None:
                response.headers[rules.x_cache] = outcome.label
            return response
        headers, is_unchanged = finished(page, rules, environ, engine, outcome.label)
        if is_unchanged:
            return _response(current_app.response_class, 304, headers, b"")
        # Not one by one in its place: of a header with several lines the last would be left.
        for name in dict(headers):
            response.headers.remove(name)
        response.headers.extend(headers)
        return response

    def _tell(self, is_hit: bool, key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        signal = cache_view_hit if is_hit else cache_view_miss
        signal.send(cache=self._cache, cache_key=key, args=args, kwargs=kwargs)


def _response(kind: type[Response], status: int, headers: list[tuple[str, str]], body: bytes) -> Response:
    """As `kind(body, status, headers)`, at a tenth of its time for Flask's own: what it would look for in its
    arguments is known.
    """
    if kind is not Response:
        return kind(body, status, headers)
    response: Response = _new(kind)
    fields: Headers = _new(Headers)
    fields._list = headers
    response.headers = fields
    response.response = [body]
    response.direct_passthrough = False
    response._on_close = []
    if status == 200:
        response._status_code = status
        response._status = "200 OK"
    else:
        response.status_code = status
    return response


def _asked_for(target: str | Request) -> tuple[str, str]:
    """Path and query, as WSGI has them."""
    if isinstance(target, str):
        parts = urlsplit(target)
        return unquote_to_bytes(parts.path).decode("latin-1"), parts.query
    environ = target.environ
    return _path_in(environ), environ.get("QUERY_STRING", "")


def _path_in(environ: Mapping[str, Any]) -> str:
    """Servers may leave out either part where it is empty (PEP 3333)."""
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path


def _names_in_g(given: object) -> frozenset[str]:
    if isinstance(given, Collection) and not isinstance(given, str | bytes):
        names: tuple[Any, ...] = tuple(given)
        if all(isinstance(name, str) for name in names):
            return frozenset(names)
    raise ConfigError("g", given, 'give a list or tuple of names, such as ("user",)')


def _name_of(view: Callable[..., Any]) -> str:
    """What keys call a view."""
    name = getattr(view, "__qualname__", None) or type(view).__qualname__
    if "<locals>" in name:
        # Those of class-based views are all alike.
        name = getattr(view, "__name__", name)
    return f"{module_name(getattr(view, '__module__', None) or '?')}.{name}"
