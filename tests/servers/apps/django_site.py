"""Views over both caches, synchronous at /do and asynchronous at /ado, for WSGI and ASGI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import django
from django.core.asgi import get_asgi_application
from django.core.cache import caches
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from operations import ENTRIES_LIVE, answer, hold

ALIASES = {"shared": "default", "memory": "local"}


def perform(asked: Mapping[str, str]) -> Any:
    cache = caches[ALIASES[asked["scope"]]]
    match asked["op"]:
        case "get":
            return cache.get(asked["key"])
        case "set":
            cache.set(asked["key"], int(asked["value"]), ENTRIES_LIVE)
        case "delete":
            cache.delete(asked["key"])
        case "clear":
            cache.clear()
        case "incr":
            return cache.incr(asked["key"])
    return None


async def aperform(asked: Mapping[str, str]) -> Any:
    cache = caches[ALIASES[asked["scope"]]]
    match asked["op"]:
        case "get":
            return await cache.aget(asked["key"])
        case "set":
            await cache.aset(asked["key"], int(asked["value"]), ENTRIES_LIVE)
        case "delete":
            await cache.adelete(asked["key"])
        case "clear":
            await cache.aclear()
        case "incr":
            return await cache.aincr(asked["key"])
    return None


def do(request: HttpRequest) -> JsonResponse:
    result = perform(request.GET)
    hold(request.GET)
    return JsonResponse(answer(result))


async def ado(request: HttpRequest) -> JsonResponse:
    result = await aperform(request.GET)
    hold(request.GET)
    return JsonResponse(answer(result))


urlpatterns = [path("do", do), path("ado", ado)]

# Only one of the two is served, but whichever it is is loaded as servers load it.
if os.environ.get("SERVER_TESTS_PROTOCOL") == "asgi":
    application: Any = get_asgi_application()
elif os.environ.get("SERVER_TESTS_PROTOCOL") == "wsgi":
    application = get_wsgi_application()
else:
    django.setup()

if os.environ.get("SERVER_TESTS_WARM"):
    for scope in ALIASES:
        perform({"scope": scope, "op": "set", "key": "warm", "value": "1"})
        perform({"scope": scope, "op": "get", "key": "warm"})
