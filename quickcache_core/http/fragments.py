"""Parts of pages: text that templates render."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from quickcache_core.decorators.place import Missed, look_up
from quickcache_core.errors import LoaderTimeout
from quickcache_core.fingerprint import LONGEST_KEY, quoted, shortened, stable_form
from quickcache_core.http.pages import Trouble, ViewRaised
from quickcache_core.http.rules import tidy
from quickcache_core.loading.options import tag_names
from quickcache_core.ttl import TTL

if TYPE_CHECKING:
    from quickcache_core.cache import QuickCache


def fragment_key(name: str, vary_on: Iterable[object]) -> str:
    """The key of a part with that name, by the values that it depends on. Raises `NoStableForm` for values
    that can't be told from others.
    """
    key = f"fragment:{quoted(name)}:{','.join(map(stable_form, vary_on))}"
    if not key.isprintable() or " " in key or "\\" in key:
        key = tidy(key)
    return key if len(key) <= LONGEST_KEY else shortened(key)


def tags_in(given: Any) -> tuple[str, ...]:
    """Tags as templates write them: a text with commas, or anything with strings in it."""
    if not given:
        return ()
    if isinstance(given, str):
        return tuple(tag for tag in map(str.strip, given.split(",")) if tag)
    return tag_names("tags", given)


Prepare = Callable[[], Callable[[], str]]


class Fragments:
    """Finds them, or has them rendered once for all who need them at the same time."""

    def __init__(self) -> None:
        self._trouble = Trouble("fragments", "they are rendered")

    def text(self, engine: QuickCache, key: str, prepare: Prepare, ttl: TTL | None, options: Any) -> str:
        """What is kept under the key, or what is rendered now: `prepare` is called in this thread then, and
        what it gives renders, perhaps in another one. A cache that fails is done without; what the rendering
        raises is raised. `options` are those of `get_or_set`.
        """
        rendered: list[str] = []
        failure: Exception
        try:
            found: Any = look_up(engine, key, engine)
            if found.__class__ is Missed:
                load = self._loader(prepare(), rendered)
                found = engine._filler.fill(key, load, found.answer, ttl, options)
            if found.__class__ is not str:
                raise TypeError(f"a fragment is text, this is {type(found).__name__}")
            text: str = found
        except ViewRaised as raised:
            failure = raised.error
        except LoaderTimeout:
            raise
        except Exception as error:
            self._trouble.report(error)
            return rendered[0] if rendered else prepare()()
        else:
            return text
        # Not above: it would get our wrapping of it for its context.
        raise failure

    @staticmethod
    def _loader(render: Callable[[], str], rendered: list[str]) -> Callable[[], str]:
        def load() -> str:
            try:
                # A plain string: what says that it is safe belongs to a framework.
                text = "".join(render())
            except Exception as error:
                raise ViewRaised(error) from error
            rendered.append(text)
            return text

        return load
