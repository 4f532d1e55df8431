"""Views that use the cache in the ways that Django offers."""

from __future__ import annotations

from itertools import count

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path
from django.views.decorators.cache import cache_page

made = count(1)

FRAGMENT = "{% load cache %}{% cache 60 fragment who %}{{ number }} for {{ who }}{% endcache %}"


@cache_page(60)
def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"page {next(made)}")


def fragment(request: HttpRequest) -> HttpResponse:
    template = engines["django"].from_string(FRAGMENT)
    return HttpResponse(template.render({"number": next(made), "who": request.GET["who"]}))


def visits(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


async def answer(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await cache.aget_or_set("answer", lambda: f"answer {next(made)}"))


urlpatterns = [
    path("page/", page),
    path("fragment/", fragment),
    path("visits/", visits),
    path("answer/", answer),
]
