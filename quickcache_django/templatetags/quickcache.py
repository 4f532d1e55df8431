"""`{% quickcache %}`: Django's `{% cache %}` with tags, stale serving, and one rendering for all who wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheBackendError
from django.core.exceptions import ImproperlyConfigured
from django.template import Context, Library, Node, NodeList, TemplateSyntaxError
from django.template.base import FilterExpression, Parser, Token
from django.utils import timezone, translation
from django.utils.safestring import SafeString, mark_safe

from quickcache_core import NoStableForm
from quickcache_core.http import Fragments, fragment_key, tags_in
from quickcache_django.aliases import backend_of
from quickcache_django.backend import QuickCache
from quickcache_django.conf import NOT_KEPT, engine_ttl
from quickcache_django.decorators import register_users

register = Library()

_OPTIONS = ("tags", "stale", "using")
_fragments = Fragments()


class QuickCacheNode(Node):
    """A part of a template, and how it is kept."""

    def __init__(
        self,
        nodelist: NodeList,
        timeout: FilterExpression,
        name: str,
        vary_on: list[FilterExpression],
        options: Mapping[str, FilterExpression],
    ) -> None:
        self.nodelist = nodelist
        self._timeout = timeout
        self._name = name
        self._vary_on = vary_on
        self._options = options

    def render(self, context: Context) -> SafeString:
        given = {name: value.resolve(context) for name, value in self._options.items()}
        timeout = self._timeout.resolve(context)
        ttl = engine_ttl(None if timeout is None else self._seconds("timeout", timeout))
        if ttl is NOT_KEPT:
            return self.nodelist.render(context)
        backend = _backend(given.get("using"))
        try:
            key = fragment_key(self._name, [one.resolve(context) for one in self._vary_on])
            options: dict[str, Any] = {"tags": tuple(map(backend.make_tag, tags_in(given.get("tags"))))}
        except (NoStableForm, TypeError) as error:
            raise TemplateSyntaxError(f"quickcache {self._name}: {error}") from error
        if "stale" in given:
            options["stale_ttl"] = self._seconds("stale", given["stale"])
        prepare = partial(self._rendering, context)
        text = _fragments.text(backend.engine, backend.make_key(key), prepare, ttl, options)
        return mark_safe(text)  # noqa: S308 - it was when it was rendered

    def _rendering(self, context: Context) -> Callable[[], str]:
        thread, copied = threading.get_ident(), _frozen(context)
        language, zone = translation.get_language(), timezone.get_current_timezone()

        def render() -> str:
            if threading.get_ident() == thread:
                return self.nodelist.render(context)
            # In the background, while the template goes on with its context.
            with translation.override(language), timezone.override(zone):
                return self.nodelist.render(copied)

        return render

    def _seconds(self, option: str, given: Any) -> float:
        try:
            return float(given)
        except (TypeError, ValueError):
            raise TemplateSyntaxError(
                f"quickcache {self._name}: {option} is {given!r}; give a number of seconds"
            ) from None


def _frozen(context: Context) -> Context:
    """As it is now: loops go on, and what they set is changed in place."""
    copied = copy(context)
    copied.dicts = [_with_own_loop(one) for one in context.dicts]
    copied.render_context.dicts = [dict(one) for one in context.render_context.dicts]
    return copied


def _with_own_loop(variables: Mapping[str, Any]) -> dict[str, Any]:
    copied = dict(variables)
    for name in ("forloop", "parentloop"):
        if isinstance(copied.get(name), dict):
            copied[name] = _with_own_loop(copied[name])
    return copied


def _backend(alias: Any) -> QuickCache:
    """As with `{% cache %}`: without a name that of fragments, if there is one."""
    if alias is None:
        alias = "template_fragments" if "template_fragments" in caches.settings else "default"
    try:
        return backend_of(alias)
    except (InvalidCacheBackendError, ImproperlyConfigured) as error:
        raise TemplateSyntaxError(f"quickcache: {error}") from error


@register.tag("quickcache")
def quickcache(parser: Parser, token: Token) -> QuickCacheNode:
    """Keep a part of a template.

    `{% quickcache timeout name value ... tags="a,b" stale=seconds using="alias" %} ... {% endquickcache %}`:
    the timeout in seconds (None: no end), a name, the values that the part depends on, and options.
    """
    register_users()
    nodelist = parser.parse(("endquickcache",))
    parser.delete_first_token()
    words = token.split_contents()[1:]
    if len(words) < 2:
        raise TemplateSyntaxError("quickcache takes a timeout and a name at least")
    values: list[FilterExpression] = []
    options: dict[str, FilterExpression] = {}
    for word in words[2:]:
        option, is_option, value = word.partition("=")
        if not is_option or not option.isidentifier():
            values.append(parser.compile_filter(word))
        elif option in _OPTIONS:
            options[option] = parser.compile_filter(value)
        else:
            known = ", ".join(_OPTIONS)
            raise TemplateSyntaxError(f"quickcache: unknown option {option!r}; there are {known}")
    name = words[1].strip("\"'")
    return QuickCacheNode(nodelist, parser.compile_filter(words[0]), name, values, options)
