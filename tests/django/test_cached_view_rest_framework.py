"""`cached_view` on views of Django REST framework, whose responses are rendered after the view."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.sessions.backends.cache import SessionStore
from django.test import RequestFactory, override_settings
from django.utils.decorators import method_decorator

from quickcache_django.decorators import cached_view

BACKEND = "quickcache_django.QuickCache"
keep = cached_view(60, x_cache=True)


@pytest.fixture(autouse=True)
def _settings(location: str) -> Iterator[None]:
    with override_settings(
        CACHES={"default": {"BACKEND": BACKEND, "LOCATION": location}},
        # What else it brings would need further apps.
        REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None},
    ):
        yield


def ask(view: Any, accept: str = "application/json", method: str = "GET") -> tuple[str, str]:
    """The answer as Django would send it."""
    response = view(RequestFactory().generic(method, "/page/", headers={"accept": accept}))
    if callable(getattr(response, "render", None)):
        response = response.render()
    return response.content.decode(), response["X-Cache"]


def test_view_and_function() -> None:
    """Around `dispatch`, or above `api_view`: the response is complete but not rendered."""
    from rest_framework.decorators import api_view
    from rest_framework.response import Response
    from rest_framework.views import APIView

    numbers = itertools.count(1)

    @method_decorator(keep, name="dispatch")
    class Page(APIView):
        def get(self, request: Any) -> Any:
            return Response({"number": next(numbers)})

    @keep
    @api_view(["GET"])
    def page(request: Any) -> Any:
        return Response({"number": next(numbers)})

    for number, view in enumerate((Page.as_view(), page), 1):
        expected = f'{{"number":{number}}}'
        assert [ask(view), ask(view), ask(view, method="HEAD")] == [
            (expected, "MISS"),
            (expected, "HIT"),
            (expected, "HIT"),
        ]
        keep.invalidate("/page/")


def test_token() -> None:
    """The user that `user=True` knows isn't the one that the view finds by a token."""
    from rest_framework.authentication import BaseAuthentication
    from rest_framework.response import Response
    from rest_framework.views import APIView

    class Tokens(BaseAuthentication):
        def authenticate(self, request: Any) -> Any:
            token = request.headers.get("authorization")
            return token and (SimpleNamespace(name=token, pk=token), token)

    @method_decorator(cached_view(60, user=True, x_cache=True), name="dispatch")
    class Mine(APIView):
        authentication_classes = (Tokens,)

        def get(self, request: Any) -> Any:
            return Response(getattr(request.user, "name", "nobody"))

    def ask(token: str) -> tuple[str, str]:
        request: Any = RequestFactory().get("/mine/", headers={"authorization": token} if token else {})
        # Of a visitor who isn't logged in, and has a session for all that.
        request.user, request.session = SimpleNamespace(pk=None), SessionStore("x" * 32)
        response = Mine.as_view()(request)
        if callable(getattr(response, "render", None)):
            response.render()
        return response.content.decode(), response["X-Cache"]

    assert [ask("ada"), ask("bob")] == [('"ada"', "BYPASS"), ('"bob"', "BYPASS")]
    assert [ask(""), ask("")] == [('"nobody"', "MISS"), ('"nobody"', "HIT")]


def test_method() -> None:
    """On a method the response lacks its renderer still; each has pages of its own."""
    from rest_framework.renderers import JSONRenderer, StaticHTMLRenderer
    from rest_framework.response import Response
    from rest_framework.viewsets import ViewSet

    numbers = itertools.count(1)

    class Pages(ViewSet):
        renderer_classes = (JSONRenderer, StaticHTMLRenderer)

        @method_decorator(keep)
        def list(self, request: Any) -> Any:
            number = next(numbers)
            return Response([number] if request.accepted_renderer.format == "json" else f"<p>{number}")

    view = Pages.as_view({"get": "list"})
    kinds = ("application/json", "text/html", "application/json", "text/html")
    assert [ask(view, accept=kind) for kind in kinds] == [
        ("[1]", "MISS"),
        ("<p>2", "MISS"),
        ("[1]", "HIT"),
        ("<p>2", "HIT"),
    ]
