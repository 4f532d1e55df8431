"""`{% quickcache %}` for Jinja: Flask-Caching's `{% cache %}` with tags, stale serving, and one rendering for
all who wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from flask import has_request_context, request
from flask_caching import Cache
from flask_caching.jinja2ext import JINJA_CACHE_ATTR_NAME
from jinja2 import nodes
from jinja2.exceptions import TemplateRuntimeError
from jinja2.ext import Extension
from jinja2.parser import Parser

from quickcache_core import NoStableForm
from quickcache_core.http import Fragments, fragment_key, tags_in
from quickcache_flask.conf import ttl_of
from quickcache_flask.decorators import backend_of
from quickcache_flask.jinja_body import frozen
from quickcache_flask.surroundings import Surroundings

_OPTIONS = ("tags", "stale", "using")
_fragments = Fragments()


class QuickCacheExtension(Extension):
    """`{% quickcache timeout, name, value, ..., tags="a,b", stale=seconds, using=cache %}`.

    `app.jinja_env.add_extension("quickcache_flask.fragments.QuickCacheExtension")` makes it known. Without
    `using` it takes the `Cache` that was last initialised for the app.
    """

    tags = {"quickcache"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        values: list[nodes.Expr] = []
        options: list[nodes.Keyword] = []
        while True:
            name = parser.stream.current
            if name.type == "name" and parser.stream.look().type == "assign":
                if name.value not in _OPTIONS:
                    known = ", ".join(_OPTIONS)
                    parser.fail(f"quickcache: unknown option {name.value!r}; there are {known}", line)
                parser.stream.skip(2)
                options.append(nodes.Keyword(name.value, parser.parse_expression()))
            elif options:
                parser.fail("quickcache: options come last", line)
            else:
                values.append(parser.parse_expression())
            if not parser.stream.skip_if("comma"):
                break
        if len(values) < 2:
            parser.fail("quickcache takes a timeout and a name at least, with a comma between them", line)
        body = parser.parse_statements(("name:endquickcache",), drop_needle=True)
        call = self.call_method("_text", values, options)
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _text(
        self,
        timeout: Any,
        name: str,
        *vary_on: object,
        caller: Callable[[], str],
        tags: Any = None,
        stale: Any = None,
        using: Cache | None = None,
    ) -> str:
        cache: Cache | None = using
        if cache is None:
            cache = getattr(self.environment, JINJA_CACHE_ATTR_NAME, None)
        if not isinstance(cache, Cache):
            raise TemplateRuntimeError(f"quickcache {name}: {cache!r} is no flask_caching.Cache")
        backend = backend_of(cache)
        ttl = backend._default_ttl
        if timeout is not None and (ttl := ttl_of(timeout)) is None:
            return caller()
        try:
            key = fragment_key(str(name), vary_on)
            options: dict[str, Any] = {"tags": tuple(backend._own_tags(tags_in(tags)))}
        except (NoStableForm, TypeError) as error:
            raise TemplateRuntimeError(f"quickcache {name}: {error}") from error
        if stale is not None:
            options["stale_ttl"] = stale
        stored_as = backend._stored_key(key)
        return _fragments.text(backend.engine, stored_as, partial(_rendering, caller), ttl, options)


def _rendering(caller: Callable[[], str]) -> Callable[[], str]:
    """Renders here, or in a background thread, which has no request of its own, and while the template goes
    on with its variables.
    """
    surroundings = Surroundings(request) if has_request_context() else None
    thread, behind = threading.get_ident(), frozen(caller)

    def render() -> str:
        if threading.get_ident() == thread:
            return caller()
        with surroundings.entered() if surroundings is not None else nullcontext():
            return behind()

    return render
