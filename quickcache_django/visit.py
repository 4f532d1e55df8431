"""One request for a cached view, and the call of the view that it may need."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.http import HttpResponse
from django.utils import timezone, translation
from django.utils.functional import SimpleLazyObject

from quickcache_core.http import Snapshot, for_whole_page
from quickcache_django.backend import QuickCache
from quickcache_django.watched import Watched

if TYPE_CHECKING:
    from quickcache_django.views import CachedView

View = Callable[..., Any]


class Visit:
    """A request; a `quickcache_core.http.Visit` where a look at the cache doesn't do."""

    __slots__ = (
        "_is_behind",
        "_is_personal",
        "_is_seen",
        "_language",
        "_thread",
        "_zone",
        "args",
        "backend",
        "cached",
        "environ",
        "head",
        "kwargs",
        "request",
        "user",
        "view",
    )

    backend: QuickCache

    def __init__(
        self,
        cached: CachedView,
        view: View,
        head: str,
        request: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.cached = cached
        self.view = view
        self.head = head
        self.request = request
        self.environ: Mapping[str, Any] = request.META
        self.args = args
        self.kwargs = kwargs
        self.user: Any = None
        self._thread = threading.get_ident()
        self._is_personal = False

    def begin(self, *, is_behind: bool) -> tuple[str, ...]:
        self._is_behind = is_behind
        # Who looked before the view may have left there what the view shows: `login_required` does, with
        # `request.user`. With `user` pages differ by it.
        session = getattr(self.request, "session", None)
        self._is_seen = not self.cached.pages.rules.by_user and bool(getattr(session, "accessed", False))
        self._language = translation.get_language()
        self._zone = timezone.get_current_timezone()
        return tuple(map(self.backend.make_tag, self.cached.tags(self.head, self.request)))

    def call(self) -> Any:
        with self._surroundings() as request, Watched(request) as watched:
            response = self.view(request, *self.args, **self.kwargs)
            if _is_to_be_rendered(response):
                response = _finalized(request, response).render()
        self._is_personal = watched.is_personal(self.user, by_user=self.cached.pages.rules.by_user)
        return response

    async def acall(self) -> Any:
        with self._surroundings() as request, Watched(request) as watched:
            response = self.view(request, *self.args, **self.kwargs)
            if isawaitable(response):
                response = await response
            if _is_to_be_rendered(response):
                response = await sync_to_async(_finalized(request, response).render)()
        self._is_personal = watched.is_personal(self.user, by_user=self.cached.pages.rules.by_user)
        return response

    def taken(self, response: Any) -> Snapshot | None:
        if not isinstance(response, HttpResponse) or response.streaming:
            return None
        if response.cookies or self._is_personal or self._is_seen:
            return None
        return Snapshot(response.status_code, list(response.items()), response.content)

    @contextmanager
    def _surroundings(self) -> Iterator[Any]:
        """Around a call: the request, or a copy where the request may be over, and of a HEAD, which is served
        from a GET.
        """
        request = self.request
        if self._is_behind or threading.get_ident() != self._thread:
            # The request has them taken away, and no middleware that brings them runs here.
            with translation.override(self._language), timezone.override(self._zone):
                yield _copy_for_later(request)
        elif request.method != "GET":
            yield _copy(request)
        else:
            yield request


def _copy(request: Any) -> Any:
    request = copy(request)
    request.method = "GET"
    request.META = for_whole_page(request.META)
    vars(request).pop("headers", None)  # as made of the other META
    return request


def _copy_for_later(request: Any) -> Any:
    """With a session of its own, for another thread."""
    request = _copy(request)
    session = getattr(request, "session", None)
    if session is not None:
        request.session = type(session)(session.session_key)
        if isinstance(getattr(request, "user", None), SimpleLazyObject):
            _let_log_in(request)
    return request


def _let_log_in(request: Any) -> None:
    """Have a copy of a request find its user by itself, not by way of the request that it is a copy of."""
    from django.contrib.auth.middleware import auser, get_user

    vars(request).pop("_cached_user", None)
    vars(request).pop("_acached_user", None)
    request.user = SimpleLazyObject(partial(get_user, request))
    request.auser = partial(auser, request)


def _is_to_be_rendered(response: Any) -> bool:
    render = getattr(response, "render", None)
    return callable(render) and not getattr(response, "is_rendered", False)


def _finalized(request: Any, response: Any) -> Any:
    """A response of Django REST framework as its views complete it, but later than we need it."""
    if not hasattr(response, "accepted_renderer") and hasattr(request, "accepted_renderer"):
        response.accepted_renderer = request.accepted_renderer
        response.accepted_media_type = request.accepted_media_type
        context = request.parser_context
        response.renderer_context = context["view"].get_renderer_context() if "view" in context else context
    return response
