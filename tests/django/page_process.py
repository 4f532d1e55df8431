"""One worker of a site with a cached view. For each line that comes in it does what the line says, and
answers with a line: `ask` for the page from 25 threads at once, or `invalidate` it.

Usage: page_process.py LOCATION CALLS; each call of the view adds a character to the file CALLS.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import django
from django.conf import settings

location, calls = sys.argv[1:]
settings.configure(
    ALLOWED_HOSTS=["testserver"],
    CACHES={"default": {"BACKEND": "quickcache_django.QuickCache", "LOCATION": location}},
    SECRET_KEY="a key of these tests, long enough to sign with",
    USE_TZ=True,
)
django.setup()

from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import RequestFactory  # noqa: E402

from quickcache_django.decorators import cached_view  # noqa: E402


@cached_view(60)
def page(request: HttpRequest) -> HttpResponse:
    with Path(calls).open("a") as file:
        file.write(".")
    # So that the others come meanwhile.
    time.sleep(0.5)
    return HttpResponse(f"made by {os.getpid()}")


def ask() -> str:
    contents = set()

    def one() -> None:
        contents.add(page(RequestFactory().get("/page/")).content.decode())

    threads = [threading.Thread(target=one) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ", ".join(contents)


print("ready", flush=True)
for line in sys.stdin:
    if line == "ask\n":
        print(ask(), flush=True)
    else:
        page.invalidate("/page/")
        print("done", flush=True)
