"""`{% quickcache %}`, and what Django has for views and templates beside it."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.middleware.cache import FetchFromCacheMiddleware, UpdateCacheMiddleware
from django.template import Context, TemplateSyntaxError, engines
from django.test import RequestFactory, override_settings
from django.utils import translation
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.cache import cache_page

from quickcache_core.testing import ManualClock
from quickcache_django import QuickCache

BACKEND = "quickcache_django.QuickCache"


@pytest.fixture(autouse=True)
def cache(location: str, clock: ManualClock) -> Iterator[QuickCache]:
    """The alias `default`, with the manual clock."""
    entry = {"BACKEND": BACKEND, "LOCATION": location, "KEY_PREFIX": "shop", "OPTIONS": {"CLOCK": clock}}
    with override_settings(CACHES={"default": entry}):
        cache = caches["default"]
        assert isinstance(cache, QuickCache)
        yield cache


class Count:
    """Gives 1, 2, 3 ... each time it is rendered."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __str__(self) -> str:
        return str(next(self._numbers))


def template(tag: str, body: str = "{{ n }} {{ who }}") -> Callable[..., str]:
    made = engines["django"].from_string(f"{{% load quickcache %}}{{% {tag} %}}{body}{{% endquickcache %}}")
    count = Count()
    return lambda **context: str(made.render({"n": count, **context}))


def eventually(check: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(500):
        if check():
            return
        pause.wait(0.01)
    pytest.fail("it didn't happen within 5 seconds")


def test_a_second_rendering(clock: ManualClock) -> None:
    """Within the timeout it is the same text, still escaped as it was."""
    render = template("quickcache 60 box")
    assert [render(who="<a>"), render(who="b")] == ["1 &lt;a&gt;", "1 &lt;a&gt;"]
    clock.advance(60)
    assert render(who=mark_safe("<b>")) == "2 <b>"


def test_inside_a_variable() -> None:
    """The text is safe, for whatever goes on with it."""
    part = "{% quickcache 60 box %}<i>{% endquickcache %}"
    made = engines["django"].from_string(
        f"{{% load quickcache %}}{{% filter force_escape %}}{part}{{% endfilter %}}"
    )
    assert [made.render(), made.render()] == ["&lt;i&gt;"] * 2
    node = made.template.nodelist[1].nodelist[0]
    assert type(node.render(Context())) is SafeString


def test_values_that_it_depends_on() -> None:
    """Each combination has a text of its own; 1 and "1" are two."""
    render = template("quickcache 60 box who other")
    for who, other in ((1, 1), (1, "1"), (1, 2), (1, 1)):
        text = render(who=who, other=other)
    assert text == "1 1"


def test_values_without_a_stable_form() -> None:
    """No key is made of an address."""
    with pytest.raises(TemplateSyntaxError, match="quickcache box"):
        template("quickcache 60 box who")(who=object())


@pytest.mark.parametrize(("timeout", "expected"), [("None", "1"), ("0", "2"), ("t", "1")])
def test_timeouts_as_django_has_them(timeout: str, expected: str, clock: ManualClock) -> None:
    """None: no end; 0: nothing is kept; or what a variable says."""
    render = template(f"quickcache {timeout} box")
    render(t=1e9)
    clock.advance(1e6)
    assert render(t=1e9).strip() == expected


def test_tags(cache: QuickCache) -> None:
    """As a text with commas, or a list; they are those of everything else in the cache."""
    one, two = template('quickcache 60 one tags="a, b"'), template("quickcache 60 two tags=mine")
    one(), two(mine=["c"])
    cache.invalidate_tags("b")
    assert [one(), two(mine=["c"])] == ["2 ", "1 "]
    cache.invalidate_tags("c")
    assert [one(), two(mine=["c"])] == ["2 ", "2 "]


def test_stale(clock: ManualClock) -> None:
    """After the timeout the old text is served, while a new one is rendered behind it, from the context as it
    was and in the same language.
    """
    body = "{% load i18n %}{% get_current_language as l %}{{ n }} {{ who }} {{ l }}"
    render = template("quickcache 60 box stale=600", body)
    with translation.override("de"):
        assert render(who="a") == "1 a de"
        clock.advance(61)
        assert render(who="b") == "1 a de"
    eventually(lambda: render(who="c") == "2 b de")


def test_rendered_by_many_at_the_same_time(cache: QuickCache) -> None:
    """Once for all of them."""
    arrived, proceed = threading.Barrier(21), threading.Event()
    numbers = itertools.count(1)

    class Slow:
        def __str__(self) -> str:
            proceed.wait(10)
            return str(next(numbers))

    made = engines["django"].from_string(
        "{% load quickcache %}{% quickcache 60 box %}{{ n }}{% endquickcache %}"
    )
    texts = []

    def ask() -> None:
        arrived.wait(10)
        texts.append(made.render({"n": Slow()}))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    arrived.wait(10)
    eventually(lambda: cache.engine.metrics().load_waits == 19)
    proceed.set()
    for thread in threads:
        thread.join()
    assert texts == ["1"] * 20


def test_cache_that_fails(cache: QuickCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template is rendered without."""
    render = template("quickcache 60 box")

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(cache.engine, "_get", fail)
    assert [render(), render()] == ["1 ", "2 "]
    monkeypatch.undo()
    monkeypatch.setattr(cache.engine._store, "put_with", fail)
    monkeypatch.setattr(cache.engine._store, "put", fail)
    assert [render(), render()] == ["3 ", "4 "]


@pytest.mark.parametrize("entry", [5, None, ["text"], b"text"])
def test_entry_that_is_no_text(entry: Any, cache: QuickCache) -> None:
    """The template is rendered without."""
    render = template("quickcache 60 box")
    render()
    [key] = cache.engine.keys()
    cache.engine.set(key, entry)
    assert [render(), render()] == ["2 ", "3 "]


def test_rendering_that_fails() -> None:
    """What it raises is raised, as it is."""

    class Failing:
        def __str__(self) -> str:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        template("quickcache 60 box")(who=Failing())


def test_which_cache(location: str) -> None:
    """The alias that `using` names, else `template_fragments`, if there is one."""
    entries = {
        name: {"BACKEND": BACKEND, "LOCATION": f"{location} {name}"}
        for name in ("default", "template_fragments", "other")
    }
    with override_settings(CACHES=entries):
        template("quickcache 60 box")()
        template('quickcache 60 box using="other"')()
        sizes = [caches[name].engine.size() for name in entries]  # type: ignore[attr-defined]
    assert sizes == [0, 1, 1]


@pytest.mark.parametrize(
    "tag",
    [
        "quickcache 60",
        "quickcache 60 box speed=1",
        'quickcache "soon" box',
        'quickcache 60 box stale="later"',
        'quickcache 60 box using="nowhere"',
        "quickcache 60 box tags=5",
    ],
)
def test_wrong_tags(tag: str) -> None:
    """They are errors of the template, that name the tag."""
    with pytest.raises(TemplateSyntaxError, match="quickcache"):
        template(tag)()


# What Django has


def test_django_s_own_tag() -> None:
    """`{% cache %}` works as before, beside ours."""
    made = engines["django"].from_string("{% load cache %}{% cache 60 box who %}{{ n }}{% endcache %}")
    count = Count()
    assert [made.render({"n": count, "who": who}) for who in "aba"] == ["1", "2", "1"]


def test_cache_page() -> None:
    """`cache_page` works as before."""
    calls = itertools.count(1)
    view = cache_page(60)(lambda request: HttpResponse(str(next(calls))))
    responses = [view(RequestFactory().get(path)) for path in ("/a", "/b", "/a")]
    assert [response.content for response in responses] == [b"1", b"2", b"1"]


def test_cache_middleware() -> None:
    """And so does the middleware for the whole site."""
    calls = itertools.count(1)

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(next(calls)))

    site = UpdateCacheMiddleware(FetchFromCacheMiddleware(view))
    assert [site(RequestFactory().get("/a")).content for _ in range(2)] == [b"1", b"1"]


LOOP = """{% load quickcache %}{% for who in everybody %}{% quickcache 60 box who stale=600 %}\
[{{ n }} {{ who }} {{ forloop.counter }}{% if forloop.last %} last{% endif %}\
 {{ forloop.parentloop.counter }}]\
{% endquickcache %}{% endfor %}"""


def test_stale_in_a_loop(cache: QuickCache, clock: ManualClock) -> None:
    """What is rendered behind the page has the variables of its own turn, though the loop goes on."""
    held, number = threading.Event(), itertools.count(1)
    held.set()

    class Slow:
        def __str__(self) -> str:
            assert held.wait(10)
            return str(next(number) > 3)

    made = engines["django"].from_string(f"{{% for x in 'x' %}}{LOOP}{{% endfor %}}")

    def render() -> str:
        return made.render({"n": Slow(), "everybody": ["ann", "bob", "eve"]})

    fresh = "[{0} ann 1 1][{0} bob 2 1][{0} eve 3 last 1]"
    assert render() == fresh.format(False)
    clock.advance(61)
    held.clear()
    assert render() == fresh.format(False)
    held.set()
    eventually(lambda: render() == fresh.format(True))


def test_what_varies_without_decorators() -> None:
    """Literals, users and text that is translated late, where nothing but the tag is used."""
    code = """
import sys
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "quickcache_django"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    CACHES={"default": {"BACKEND": "quickcache_django.QuickCache"}})
import django
django.setup()
from django.contrib.auth.models import AnonymousUser
from django.template import engines
from django.utils.translation import gettext_lazy
made = engines["django"].from_string(
    '{% load quickcache %}{% quickcache 60 side "left" user text %}x{% endquickcache %}')
print(made.render({"user": AnonymousUser(), "text": gettext_lazy("text")}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("x\n", 0), done.stderr
