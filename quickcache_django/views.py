"""`@cached_view` for views of a Django project: whole responses, with all that HTTP knows of caches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache, partial, wraps
from hashlib import blake2b
from http.cookies import SimpleCookie
from inspect import isawaitable
from typing import Any
from urllib.parse import unquote, urlsplit

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase, ResponseHeaders
from django.utils import timezone, translation
from django.utils.functional import Promise

from quickcache_core import ConfigError
from quickcache_core import QuickCache as Engine
from quickcache_core.fingerprint import module_name
from quickcache_core.http import (
    Outcome,
    Pages,
    answer,
    answer_at_hand,
    finished,
    form_of,
    has_content,
    is_page,
    read_rules,
)
from quickcache_core.loading.options import tag_names
from quickcache_django.aliases import backend_of
from quickcache_django.backend import QuickCache
from quickcache_django.conf import NOT_KEPT, engine_ttl
from quickcache_django.visit import View, Visit

OfRequest = Callable[[Any], Any]


def cached_view(
    timeout: Any = DEFAULT_TIMEOUT,
    *,
    alias: str = "default",
    query: Collection[str] | bool = True,
    headers: Collection[str] = (),
    user: bool | OfRequest = False,
    language: bool | OfRequest | None = None,
    host: bool = True,
    statuses: Collection[int] = (200,),
    tags: Collection[str] | OfRequest = (),
    unless: OfRequest | None = None,
    version: str | int | None = None,
    etag: bool = True,
    last_modified: bool = False,
    cache_control: bool = False,
    stale_directives: bool = False,
    x_cache: bool | str = False,
    **options: Any,
) -> CachedView:
    """Keep the responses of a view, plain or `async def`, in the cache of an alias.

    For functions, what `as_view()` gives, and with `method_decorator` for methods of class-based views. Only
    GET and HEAD without content are answered from the cache. What the responses to other requests, to those
    with an `Authorization` and to those that the session was looked into for would tell is not for everybody:
    without `user` they are not kept. Nor are responses with a CSRF token, or that set a cookie, are streamed,
    or say `no-store`. `docs/views.md` has all of it, and a table of the options.

    `timeout` is what it is in Django. Raises `ConfigError`, `TypeError` and `ValueError` here; requests raise
    what the view raises, `LoaderTimeout` with a `hard_timeout`, and `ImproperlyConfigured` if the alias isn't
    a QuickCache.
    """
    return CachedView(
        timeout,
        alias=alias,
        user=user,
        language=language,
        tags=tags,
        unless=unless,
        rules={
            "query": query,
            "headers": headers,
            "host": host,
            "statuses": statuses,
            "etag": etag,
            "last_modified": last_modified,
            "cache_control": cache_control,
            "stale_directives": stale_directives,
            "x_cache": x_cache,
            "version": version,
            "options": options,
        },
    )


class CachedView:
    """What `cached_view(...)` gives: decorates views, and forgets their pages.

    A decorated view has `uncached`, and `invalidate`, `invalidate_all` and their twins for coroutines. For
    methods of class-based views, which Django decorates anew for each request, the first two are here.
    """

    def __init__(
        self,
        timeout: Any,
        *,
        alias: str,
        user: bool | OfRequest,
        language: bool | OfRequest | None,
        tags: Collection[str] | OfRequest,
        unless: OfRequest | None,
        rules: Mapping[str, Any],
    ) -> None:
        for option, given in {"user": user, "language": language}.items():
            if given is not None and not callable(given) and not isinstance(given, bool):
                raise ConfigError(option, given, "give True, False, or a function of the request")
        if unless is not None and not callable(unless):
            raise ConfigError("unless", unless, "give a function of the request")
        ttl = None if timeout is DEFAULT_TIMEOUT else engine_ttl(timeout)
        self._is_kept = ttl is not NOT_KEPT
        self._alias = alias
        self._user: OfRequest | None = _user if user is True else user or None
        self._auser: OfRequest | None = _auser if user is True else user or None
        self._language = language
        self._tags: Any = tags if callable(tags) else tag_names("tags", tags)
        self._unless = unless
        self.pages = Pages(
            read_rules(
                ttl if self._is_kept else None,
                by_user=self._user is not None,
                by_language=language is not False,
                **rules,
            )
        )

    def __call__(self, view: View) -> Any:
        head = self.pages.rules.head(_name_of(view))
        if _is_asynchronous(view):

            @wraps(view)
            async def cached(request: Any, *args: Any, **kwargs: Any) -> Any:
                return await self._arespond(Visit(self, view, head, request, args, kwargs))
        else:

            @wraps(view)
            def cached(request: Any, *args: Any, **kwargs: Any) -> Any:
                return self._respond(Visit(self, view, head, request, args, kwargs))

        made: Any = cached
        made.uncached = view
        made.invalidate = self.invalidate
        made.ainvalidate = self.ainvalidate
        if not _is_stand_in(view):
            made.invalidate_all = partial(self._invalidate, head)
            made.ainvalidate_all = partial(self._ainvalidate, head)
        return made

    def invalidate(self, target: str | HttpRequest) -> None:
        """Forget the pages of a URL, for all hosts, users, languages and headers; also those that are being
        made. A URL without a query stands for all queries of its path.
        """
        self._invalidate(self.pages.rules.tag(*_asked_for(target)))

    async def ainvalidate(self, target: str | HttpRequest) -> None:
        await self._ainvalidate(self.pages.rules.tag(*_asked_for(target)))

    def _invalidate(self, tag: str) -> None:
        backend_of(self._alias).invalidate_tags(tag)

    async def _ainvalidate(self, tag: str) -> None:
        await backend_of(self._alias).ainvalidate_tags(tag)

    def tags(self, head: str, request: Any) -> tuple[str, ...]:
        own = self._tags
        if callable(own):
            own = tag_names("tags", own(request))
        return (*self.pages.rules.tags(head, *_asked_for(request)), *own)

    def _respond(self, visit: Visit) -> Any:
        request = visit.request
        if self._goes_past(request):
            return self._labelled(visit.view(request, *visit.args, **visit.kwargs))
        if self._user is not None:
            visit.user = self._user(request)
            if self._is_unknown(visit):
                return self._labelled(visit.view(request, *visit.args, **visit.kwargs))
        backend = visit.backend = backend_of(self._alias)
        engine, pages = backend.engine, self.pages
        key = self._key(backend, visit)
        try:
            found = answer_at_hand(engine, key, pages.rules, request.META)
        except Exception as error:
            pages.report(error)
            return self._labelled(visit.view(request, *visit.args, **visit.kwargs))
        if found.__class__ is tuple:
            return _response(*found)
        return self._completed(pages.respond(engine, key, visit, found), request, engine)

    async def _arespond(self, visit: Visit) -> Any:
        request = visit.request
        if self._goes_past(request):
            return self._labelled(await visit.view(request, *visit.args, **visit.kwargs))
        if self._auser is not None:
            user = self._auser(request)
            visit.user = await user if isawaitable(user) else user
            if self._is_unknown(visit):
                return self._labelled(await visit.view(request, *visit.args, **visit.kwargs))
        backend = visit.backend = backend_of(self._alias)
        engine, pages = backend.engine, self.pages
        key = self._key(backend, visit)
        try:
            found = await pages.afind(engine, key)
            if is_page(found):
                found = answer(found, pages.rules, request.META, engine, "HIT")
        except Exception as error:
            pages.report(error)
            return self._labelled(await visit.view(request, *visit.args, **visit.kwargs))
        if found.__class__ is tuple:
            return _response(*found)
        return self._completed(await pages.arespond(engine, key, visit, found), request, engine)

    def _goes_past(self, request: Any) -> bool:
        """Whether the request has no business with the cache."""
        if request.method not in ("GET", "HEAD") or not self._is_kept:
            return True
        if has_content(request.META):
            return True
        if "HTTP_AUTHORIZATION" in request.META and self._user is None:
            return True
        return self._unless is not None and bool(self._unless(request))

    def _is_unknown(self, visit: Visit) -> bool:
        """Whether there are credentials by which `user` finds nobody, and the view perhaps somebody, as views
        of Django REST framework do.
        """
        return visit.user is None and "HTTP_AUTHORIZATION" in visit.environ

    def _key(self, backend: QuickCache, visit: Visit) -> str:
        request = visit.request
        environ = request.META
        host = environ.get("HTTP_HOST")
        if settings.USE_X_FORWARDED_HOST:
            host = environ.get("HTTP_X_FORWARDED_HOST", host)
        if host is None:
            host = f"{environ.get('SERVER_NAME')}:{request.get_port()}"
        key = self.pages.rules.key(
            visit.head, request.path, environ, request.scheme, host, self._extras(visit)
        )
        return backend.make_key(key) if backend._head is None else backend._head + key

    def _extras(self, visit: Visit) -> tuple[str, ...]:
        request, language = visit.request, self._language
        extras: tuple[str, ...] = ()
        if self._user is not None:
            extras = (f"user={form_of('user', visit.user)}",)
        if language is None or language is True:
            if language or settings.USE_I18N:
                extras += (translation.get_language() or "",)
        elif language is not False:
            extras += (f"language={form_of('language', language(request))}",)
        if settings.USE_TZ:
            zone = timezone.get_current_timezone()
            if zone is not timezone.get_default_timezone():
                extras += (f"zone={timezone.get_current_timezone_name()}",)
        if not isinstance(request, HttpRequest):
            # A request of Django REST framework, which has chosen a renderer for it.
            extras += (f"type={getattr(request, 'accepted_media_type', None)}",)
        return extras

    def _labelled(self, response: Any) -> Any:
        if self.pages.rules.x_cache is not None and isinstance(response, HttpResponseBase):
            response.headers[self.pages.rules.x_cache] = "BYPASS"
        return response

    def _completed(self, outcome: Outcome, request: Any, engine: Engine) -> Any:
        rules, page, response = self.pages.rules, outcome.page, outcome.response
        if response is None:
            return _response(*answer(outcome.kept, rules, request.META, engine, outcome.label))
        if page is None:
            return self._labelled(response)
        headers, is_unchanged = finished(page, rules, request.META, engine, outcome.label)
        if is_unchanged:
            return _response(304, headers, b"")
        for name, value in headers:
            response.headers[name] = value
        return response


def _user(request: Any) -> str | None:
    return _name(request, getattr(request, "user", None))


async def _auser(request: Any) -> str | None:
    ask = getattr(request, "auser", None)
    return _name(request, getattr(request, "user", None) if ask is None else await ask())


def _name(request: Any, user: Any) -> str | None:
    """What tells a user from others: the primary key; of visitors who aren't logged in the session."""
    key = getattr(user, "pk", None)
    if key is not None:
        return str(key)
    if "HTTP_AUTHORIZATION" in request.META:
        return None
    session = getattr(getattr(request, "session", None), "session_key", None)
    # A digest: who reads keys must not be able to take over sessions.
    return None if session is None else f"session {blake2b(session.encode(), digest_size=16).hexdigest()}"


@cache
def _empty() -> dict[str, Any]:
    # Not when this is imported: it asks the settings.
    return vars(HttpResponse())


def _response(status: int, headers: list[tuple[str, str]], body: bytes) -> HttpResponse:
    """As `HttpResponse(body, status=status, headers=...)`, at a fourth of its time: a copy of an empty one,
    and the rest is put in as it is.
    """
    response = HttpResponse.__new__(HttpResponse)
    fields = ResponseHeaders.__new__(ResponseHeaders)
    fields._store = {pair[0].lower(): pair for pair in headers}
    vars(response).update(
        _empty(),
        headers=fields,
        cookies=SimpleCookie(),
        status_code=status,
        _resource_closers=[],
        _container=[body],
    )
    return response


def _asked_for(target: str | HttpRequest) -> tuple[str, str]:
    """Path and query, as Django has them."""
    if isinstance(target, str | Promise):  # such as `reverse_lazy` gives
        parts = urlsplit(str(target))
        return unquote(parts.path), parts.query
    return target.path, target.META.get("QUERY_STRING", "")


def _is_asynchronous(view: View) -> bool:
    if iscoroutinefunction(view):
        return True
    # A method of a class-based view as `method_decorator` hands it over: `dispatch` is a plain function that
    # returns what the handler does.
    inner = view.func if isinstance(view, partial) else view
    return bool(getattr(getattr(inner, "__self__", None), "view_is_async", False))


def _is_stand_in(view: View) -> bool:
    """Whether `method_decorator` only wants to know what a decorator adds to a function."""
    return getattr(view, "__qualname__", "").startswith("_update_method_wrapper.")


def _name_of(view: View) -> str:
    """What keys call a view."""
    name = getattr(view, "__qualname__", None) or type(view).__qualname__
    if "<locals>" in name:
        # What `as_view` gives is called alike for all classes.
        name = getattr(getattr(view, "view_class", view), "__name__", name)
    return f"{module_name(getattr(view, '__module__', None) or '?')}.{name}"
