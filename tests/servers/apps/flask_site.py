"""A view over both caches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, jsonify, request
from flask_caching import Cache
from operations import ENTRIES_LIVE, answer, hold

app = application = Flask("flask_site")
app.secret_key = "a secret of the tests, which is long enough"

LOCATIONS = {"shared": f"shared://{os.environ['SERVER_TESTS_DIRECTORY']}", "memory": "memory://local"}


def make(scope: str) -> Cache:
    options: dict[str, Any] = {"location": LOCATIONS[scope], "max_size": 10_000}
    if scope == "shared":
        options["max_bytes"] = "8MB"
    return Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache", "CACHE_OPTIONS": options})


CACHES = {scope: make(scope) for scope in LOCATIONS}


def perform(asked: Mapping[str, str]) -> Any:
    cache = app.extensions["cache"][CACHES[asked["scope"]]]
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
            return cache.inc(asked["key"])
    return None


@app.get("/do")
def do() -> Response:
    result = perform(request.args)
    hold(request.args)
    return jsonify(answer(result))


if os.environ.get("SERVER_TESTS_WARM"):
    for scope in LOCATIONS:
        perform({"scope": scope, "op": "set", "key": "warm", "value": "1"})
        perform({"scope": scope, "op": "get", "key": "warm"})
