"""`{% quickcache %}` for Jinja, beside Flask-Caching's `{% cache %}`."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, render_template_string, request
from flask_caching import Cache
from jinja2.exceptions import TemplateRuntimeError, TemplateSyntaxError

from quickcache_core.testing import ManualClock
from quickcache_flask import QuickCache

CACHE_TYPE = "quickcache_flask.QuickCache"


@pytest.fixture
def cache(app: Flask, clock: ManualClock) -> Cache:
    cache = Cache(app, config={"CACHE_TYPE": CACHE_TYPE, "CACHE_QUICKCACHE_CLOCK": clock})
    app.jinja_env.add_extension("quickcache_flask.fragments.QuickCacheExtension")
    return cache


@pytest.fixture
def backend(app: Flask, cache: Cache) -> QuickCache:
    backend = app.extensions["cache"][cache]
    assert isinstance(backend, QuickCache)
    return backend


@pytest.fixture
def template(app: Flask, backend: QuickCache) -> Callable[..., Callable[..., str]]:
    """Renders a part in a request, with a number that counts."""

    def template(tag: str, body: str = "{{ n() }} {{ who }}") -> Callable[..., str]:
        numbers = itertools.count(1)
        source = f"{{% {tag} %}}{body}{{% endquickcache %}}"

        def render(path: str = "/", **context: Any) -> str:
            with app.test_request_context(path):
                return render_template_string(source, n=lambda: next(numbers), **context)

        return render

    return template


def eventually(check: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(500):
        if check():
            return
        pause.wait(0.01)
    pytest.fail("it didn't happen within 5 seconds")


def test_a_second_rendering(template: Any, clock: ManualClock) -> None:
    """Within the timeout it is the same text, still escaped as it was."""
    render = template("quickcache 60, 'box'")
    assert [render(who="<a>"), render(who="b")] == ["1 &lt;a&gt;"] * 2
    clock.advance(60)
    assert render(who="b") == "2 b"


def test_values_that_it_depends_on(template: Any) -> None:
    """Each combination has a text of its own; 1 and "1" are two."""
    render = template("quickcache 60, 'box', who, other")
    for who, other in ((1, 1), (1, "1"), (1, 2), (1, 1)):
        text = render(who=who, other=other)
    assert text == "1 1"
    with pytest.raises(TemplateRuntimeError, match="box"):
        render(who=object())


def test_tags(template: Any, backend: QuickCache) -> None:
    """As a text with commas, or a list."""
    one = template("quickcache 60, 'one', tags='a, b'")
    two = template("quickcache 60, 'two', tags=['c']")
    one(), two()
    backend.invalidate_tags("b")
    assert [one(), two()] == ["2 ", "1 "]
    backend.invalidate_tags("c")
    assert [one(), two()] == ["2 ", "2 "]


def test_stale(template: Any, clock: ManualClock) -> None:
    """After the timeout the old text is served, while a new one is rendered behind it, in a copy of the
    request.
    """
    render = template("quickcache 60, 'box', stale=600", "{{ n() }} {{ who }} {{ request.path }}")
    assert render("/x", who="a") == "1 a /x"
    clock.advance(61)
    assert render("/y", who="b") == "1 a /x"
    eventually(lambda: render("/z") == "2 b /y")


@pytest.mark.parametrize(("timeout", "expected"), [("0", "1"), ("-1", "2"), ("none", "2")])
def test_timeouts_as_flask_caching_has_them(
    timeout: str, expected: str, template: Any, clock: ManualClock
) -> None:
    """0: no end; negative: nothing is kept; none: that of the cache."""
    render = template(f"quickcache {timeout}, 'box'")
    render()
    clock.advance(1e6)
    assert render().strip() == expected


def test_another_cache(app: Flask, template: Any, backend: QuickCache, clock: ManualClock) -> None:
    """`using` takes a `Cache` of the app."""
    other = Cache(
        app, with_jinja2_ext=False, config={"CACHE_TYPE": CACHE_TYPE, "CACHE_QUICKCACHE_CLOCK": clock}
    )
    template("quickcache 60, 'box', using=other")(other=other)
    assert (backend.engine.size(), app.extensions["cache"][other].engine.size()) == (0, 1)
    with pytest.raises(TemplateRuntimeError, match="flask_caching"):
        template("quickcache 60, 'box', using='other'")()


def test_cache_that_fails(template: Any, backend: QuickCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template is rendered without."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(backend.engine, "_get", fail)
    render = template("quickcache 60, 'box'")
    assert [render(), render()] == ["1 ", "2 "]


@pytest.mark.parametrize(
    "tag", ["quickcache 60", "quickcache 60, 'box', speed=1", "quickcache 60, 'box', stale=1, who"]
)
def test_wrong_tags(tag: str, template: Any) -> None:
    """They are errors of the template, that name the tag."""
    with pytest.raises(TemplateSyntaxError, match="quickcache"):
        template(tag)()


def test_outside_of_a_request(app: Flask, backend: QuickCache) -> None:
    """Mails, for instance, are rendered there."""
    with app.app_context():
        source = "{% quickcache 60, 'mail' %}{{ n }}{% endquickcache %}"
        assert [render_template_string(source, n=n) for n in (1, 2)] == ["1", "1"]


def test_flask_caching_s_own_tag(app: Flask, cache: Cache) -> None:
    """`{% cache %}` works as before, beside ours."""
    with app.test_request_context("/"):
        source = "{% cache 60, 'box' %}{{ n }} {{ request.path }}{% endcache %}"
        assert [render_template_string(source, n=n) for n in (1, 2)] == ["1 /", "1 /"]
        assert request.path == "/"


def test_stale_in_a_loop(app: Flask, template: Any, clock: ManualClock) -> None:
    """What is rendered behind the page has the variables of its own turn, though the loop goes on, and what
    was set then.
    """
    held, number = threading.Event(), itertools.count(1)
    held.set()

    def n() -> bool:
        assert held.wait(10)
        return next(number) > 3

    made = app.jinja_env.from_string(
        "{% set after = 'before' %}{% for who in everybody() %}{% set mine = who.upper() %}"
        "{% quickcache 60, 'box', who, stale=600 %}[{{ n() }} {{ who }} {{ mine }} {{ after }} "
        "{{ loop.index }}{{ loop.cycle('a', 'b') }}{{ ' last' if loop.last }}{{ ' first' if loop.first }} "
        "{{ loop.previtem }}]"
        "{% endquickcache %}{% endfor %}{% set after = 'after' %}"
    )

    def everybody() -> Iterator[str]:
        yield from ["ann", "bob", "eve"]

    def render() -> str:
        with app.test_request_context():
            return made.render(n=n, everybody=everybody)

    fresh = "[{0} ann ANN before 1a first ][{0} bob BOB before 2b ann][{0} eve EVE before 3a last bob]"
    assert render() == fresh.format(False)
    clock.advance(61)
    held.clear()
    assert render() == fresh.format(False)
    held.set()
    eventually(lambda: render() == fresh.format(True))
