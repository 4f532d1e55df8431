"""The switch of the database: its file is moved away, and back. What asks it meanwhile gets an error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse

FILE = settings.DATABASE_FILE
AWAY = FILE.with_name(f"{FILE.name}.away")


def is_on() -> bool:
    return bool(FILE.exists())


def switch(*, on: bool) -> None:
    with suppress(FileNotFoundError):  # it is so already
        if on:
            AWAY.rename(FILE)
        else:
            FILE.rename(AWAY)


class SayThatItIsOff:
    """Middleware, for what isn't in the cache when the database is off."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, OperationalError):
            return HttpResponse("The database is off, and this isn't in the cache.", status=503)
        return None
