"""A Flask app over one cache in scope `redis`."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, Response, jsonify, request
from flask_caching import Cache

app = application = Flask("redis_site")
app.secret_key = "a secret of the tests, which is long enough"
OPTIONS = {
    "location": os.environ["SERVER_TESTS_REDIS_URL"],
    "redis_options": {"socket_timeout": 0.5, "socket_connect_timeout": 0.2},
}
cache = Cache(app, config={"CACHE_TYPE": "quickcache_flask.QuickCache", "CACHE_OPTIONS": OPTIONS})

if os.environ.get("SERVER_TESTS_WARM"):
    cache.set("warm", 1)
    cache.get("warm")


@app.get("/do")
def do() -> Response:
    asked = request.args
    backend = app.extensions["cache"][cache]
    result: Any = None
    match asked["op"]:
        case "get":
            result = cache.get(asked["key"])
        case "set":
            cache.set(asked["key"], int(asked["value"]), 300)
        case "delete":
            cache.delete(asked["key"])
        case "page":
            result = backend.engine.get_or_set(asked["key"], lambda: "made", ttl_sec=300)
    return jsonify({"pid": os.getpid(), "result": result})
