"""Who comes after an invalidation doesn't wait for a load from before it, whenever that tells its tags."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickcache_core import QuickCache, QuickCacheConfig, cached


@pytest.fixture(params=["memory", "shared"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QuickCache]:
    location = "" if request.param == "memory" else f"shared://{tmp_path}/cache"
    made = QuickCache(QuickCacheConfig(location=location, max_bytes="4MB"))
    yield made
    made.stop()


class Source:
    """Something that is slow the first time."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()

    def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        self.is_asked.set()
        if number == 1:
            assert self.may_answer.wait(20.0)
        return number


def in_the_middle(
    ask: Callable[[], Any], source: Source, change: Callable[[], object], *, at_once: bool
) -> tuple[Any, Any]:
    """What the first caller gets, during whose load the change is made, and what one gets who comes then.

    `at_once`: the second one doesn't even have to wait until the first load is through, as it has to where
    one process at a time may load a key.
    """
    answers: dict[str, Any] = {}
    first = threading.Thread(target=lambda: answers.update(first=ask()))
    second = threading.Thread(target=lambda: answers.update(second=ask()))
    first.start()
    try:
        assert source.is_asked.wait(20.0)
        change()
        second.start()
        second.join(10.0 if at_once else 0.2)
        assert bool(answers) is at_once
    finally:
        source.may_answer.set()
    first.join(20.0)
    second.join(20.0)
    return answers["first"], answers["second"]


def is_alone(cache: QuickCache) -> bool:
    return not cache.config.location


def test_tags_of_a_decorator(cache: QuickCache) -> None:
    """They are made when there is something to be loaded, and known from then on."""
    source = Source()

    @cached(cache, "user:{number}", tags=("user:{number}",))
    def user(number: int) -> int:
        return source()

    assert in_the_middle(
        lambda: user(7), source, lambda: cache.invalidate_tags("user:7"), at_once=is_alone(cache)
    ) == (1, 2)
    assert user(7) == 2


def test_all_results_of_a_decorator(cache: QuickCache) -> None:
    """`invalidate_all` counts for loads that are under way."""
    source = Source()

    @cached(cache, "user:{number}", namespace="users")
    def user(number: int) -> int:
        return source()

    assert in_the_middle(lambda: user(7), source, user.invalidate_all, at_once=is_alone(cache)) == (1, 2)


def test_tags_that_a_loader_adds(cache: QuickCache) -> None:
    """From the moment on at which it says them."""
    source = Source()

    def load(context: Any) -> int:
        context.add_tags("late")
        return source()

    def ask() -> Any:
        return cache.get_or_set("k", load)

    assert in_the_middle(ask, source, lambda: cache.invalidate_tags("late"), at_once=is_alone(cache)) == (
        1,
        2,
    )


def test_tags_behind_a_prefix(cache: QuickCache) -> None:
    """As the adapters have them, of the call and of the loader."""
    source = Source()

    def load(context: Any) -> int:
        context.add_tags("late")
        return source()

    def ask() -> Any:
        return cache.get_or_set("k", load, tags=["early"], tag_prefix="shop/")

    assert in_the_middle(
        ask, source, lambda: cache.invalidate_tags("shop/early"), at_once=is_alone(cache)
    ) == (1, 2)
    cache.invalidate_tags("late", "early")
    assert ask() == 2
    cache.invalidate_tags("shop/late")
    assert ask() == 3


def test_other_tags(cache: QuickCache) -> None:
    """They make nobody load again."""
    source = Source()

    def load(context: Any) -> int:
        context.add_tags("mine")
        return source()

    def change() -> None:
        cache.invalidate_tags("others")
        source.may_answer.set()

    answers: list[Any] = []
    first = threading.Thread(target=lambda: answers.append(cache.get_or_set("k", load)))
    first.start()
    assert source.is_asked.wait(20.0)
    change()
    answers.append(cache.get_or_set("k", load))
    first.join(20.0)
    assert answers == [1, 1]


def test_tags_that_are_none(cache: QuickCache) -> None:
    """What a loader says of its tags is looked at when the value is stored, as ever."""

    def load(context: Any) -> int:
        context.tags = 5
        return 1

    with pytest.raises(TypeError, match="tags=5"):
        cache.get_or_set("k", load)
    with pytest.raises(TypeError, match="tag_prefix=5"):
        cache.get_or_set("k", lambda: 1, tag_prefix=5)  # type: ignore[arg-type]
