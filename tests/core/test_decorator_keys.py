"""The keys that `@cached` makes of a call."""

from __future__ import annotations

import datetime as dt
import inspect
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from functools import partial, wraps
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import ConfigError, UnstableArgument
from quickcache_core.decorators.keys import Keys, check_function
from quickcache_core.decorators.parameters import Parameters
from quickcache_core.decorators.template import Template
from quickcache_core.fingerprint import LONGEST_KEY


def plain(a: Any, b: Any = 2) -> None:
    pass


def mixed(a: Any, /, b: Any, *rest: Any, c: Any, d: Any = 4, **more: Any) -> None:
    pass


def keyword_only(*, c: Any, d: Any = 4) -> None:
    pass


def nothing() -> None:
    pass


def anything(*rest: Any, **more: Any) -> None:
    pass


def defaults_only(a: Any = 1, /, b: Any = 2) -> None:
    pass


NO_FORM = object()


class Thing:
    def method(self, x: int) -> None:
        pass


def make_function(number: int) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    def closure(x: int) -> int:
        return x * number

    def simple(x: int) -> int:
        return x

    def factorial(x: int) -> int:
        return x * factorial(x - 1) if x else 1

    return closure, simple, factorial


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@decorated
def decorated_function(x: int) -> None:
    pass


def keys(
    function: Callable[..., Any],
    template: str | None = None,
    ignore: Any = (),
    version: Any = None,
) -> Callable[..., str]:
    made = Keys(function, template, ignore, version)
    return lambda *args, **kwargs: made.key(args, kwargs)


def parts_of(error: pytest.ExceptionInfo[UnstableArgument]) -> tuple[str, str, str]:
    return error.value.function, error.value.argument, error.value.kind


class TestBinding:
    @pytest.mark.parametrize(
        "function", [plain, mixed, keyword_only, nothing, anything, defaults_only, Thing.method]
    )
    def test_like_a_call(self, function: Callable[..., Any]) -> None:
        """Arguments are put in order as Python does it, or refused when Python would refuse them."""
        signature = inspect.signature(function)
        parameters = Parameters(function)
        for count in range(6):
            args = tuple(range(10, 10 + count))
            for names in (names for size in range(4) for names in combinations("abcdxz", size)):
                kwargs = {name: name.upper() for name in names}
                if function is mixed and not args and "a" in names:
                    # A call refuses it for want of `a`; `bind` of Python 3.13.0 doesn't.
                    with pytest.raises(TypeError):
                        parameters.values(args, kwargs)
                    continue
                try:
                    bound = signature.bind(*args, **kwargs)
                except TypeError:
                    with pytest.raises(TypeError):
                        parameters.values(args, kwargs)
                    continue
                bound.apply_defaults()
                assert list(parameters.values(args, kwargs)) == list(bound.arguments.values())

    def test_defaults_stay_as_they_are(self) -> None:
        """Values of one call don't get into the next one."""
        parameters = Parameters(mixed)
        parameters.values((1, 2, 3), {"c": 1, "z": 1})
        assert parameters.values((1, 2), {"c": 1}) == [1, 2, (), 1, 4, {}]


class TestWithoutTemplate:
    def test_however_arguments_are_given(self) -> None:
        """By position, by name or by default: the same call, the same key."""
        key = keys(plain)
        assert key(1) == key(1, 2) == key(a=1) == key(b=2, a=1) == key(1, b=2)

    def test_types_count(self) -> None:
        """1, 1.0, True and "1" are equal or look alike, and are different calls."""
        key = keys(plain)
        assert len({key(value) for value in (1, 1.0, True, "1", b"1", Decimal(1), None, "None")}) == 8

    def test_places_count(self) -> None:
        """Arguments don't run into each other."""
        key = keys(mixed)
        calls = [
            key(1, 2, c=3),
            key(2, 1, c=3),
            key(1, 2, 3, c=3),
            key(1, 2, 3, 4, c=3),
            key(1, 2, (3, 4), c=3),
            key(1, 2, c=3, z=3),
            key(1, 2, c=3, z={"z": 3}),
            key("1,b=2", 2, c=3),
            key(1, "2',c=3", c=3),
        ]
        assert len(set(calls)) == len(calls)
        assert key(1, 2, c=3, y=1, z=2) == key(1, 2, z=2, y=1, c=3)

    def test_readable(self) -> None:
        """A key names the function, where it is, and the arguments."""
        assert keys(plain)(7, "x") == f"{__name__}.plain(a=7,b='x')"
        assert keys(nothing)() == f"{__name__}.nothing()"

    def test_another_function(self) -> None:
        """Functions don't share keys, nor do methods of one name."""
        assert keys(nothing)() != keys(anything)()
        assert "Thing.method(self=" in keys(Thing.method)(1, 2)

    def test_parameters_that_were_changed(self) -> None:
        """A new parameter or another order of them makes new keys: what was stored meant something else."""

        def before(a: int, b: int) -> None:
            pass

        def after(b: int, a: int) -> None:
            pass

        before.__qualname__ = after.__qualname__ = "now"
        assert keys(before)(1, 2) != keys(after)(1, 2)

    def test_ignored_arguments(self) -> None:
        """They don't count, and may be of any type."""
        key = keys(mixed, ignore=("c", "rest"))
        assert key(1, 2, 8, c=object()) == key(1, 2, 9, c=object()) != key(1, 3, c=object())
        assert keys(plain, ignore=("b",))(1, 5) == keys(plain, ignore=("b",))(1, 6)

    def test_default_that_changes(self) -> None:
        """A default counts with what is in it at the call."""
        options = ["x"]

        def with_options(a: int, options: list[str] = options) -> None:
            pass

        key = keys(with_options)
        before = key(1)
        options.append("y")
        assert before == key(1, ["x"]) != key(1) == key(1, ["x", "y"])

    def test_default_without_stable_form(self) -> None:
        """It is an error in those calls only that use it."""

        def with_default(a: int, b: Any = NO_FORM) -> None:
            pass

        key = keys(with_default)
        assert key(1, 2) == key(1, b=2)
        with pytest.raises(UnstableArgument, match="'b'"):
            key(1)

    def test_version(self) -> None:
        """Another version has other keys, with and without a template."""
        for template in (None, "t:{a}"):
            made = {keys(plain, template, version=version)("x~v1") for version in (None, 1, 2, "v1", "1.2")}
            made.add(keys(plain, template)("x"))
            made.add(keys(plain, template, version=1)("x"))
            assert len(made) == 7

    def test_long_arguments(self) -> None:
        """Keys end in a digest before they are too long for anybody."""
        key = keys(plain)
        assert len(key("x" * 10_000)) == LONGEST_KEY
        assert key("x" * 10_000) != key("x" * 10_001)
        assert key("x" * 10_000) == key("x" * 10_000, 2)
        assert len(keys(plain, "t:{a}")("x" * 10_000)) == LONGEST_KEY

    def test_percent_signs(self) -> None:
        """Names and values may have them."""

        def percent() -> None:
            pass

        percent.__qualname__ = "100%s"
        assert keys(percent)() == f"{__name__}.100%s()"
        assert keys(plain, "100%s:{a}%")("50%").endswith("s:50%25%")

    def test_unstable_argument(self) -> None:
        """An argument without a stable form is an error that names function, argument, type and remedies."""
        with pytest.raises(UnstableArgument) as caught:
            keys(plain)(1, [object()])
        assert parts_of(caught) == (f"{__name__}.plain", "b", "object")
        for part in ("'b'", "ignore=('b',)", "key=", "__cache_key__", "register_stable_form"):
            assert part in str(caught.value)
        assert isinstance(caught.value, TypeError)

    @pytest.mark.parametrize("kwargs", [{}, {"b": object()}])
    def test_unstable_argument_has_one_cause(self, kwargs: dict[str, Any]) -> None:
        """A traceback doesn't begin with what was tried first, for most arguments."""
        with pytest.raises(UnstableArgument) as caught:
            keys(plain)(*[1, object()][: 2 - len(kwargs)], **kwargs)
        cause = caught.value.__cause__
        assert caught.value.__context__ is cause
        assert cause is not None
        assert cause.__context__ is None

    def test_self_counts(self) -> None:
        """Instances don't share results unless one says so: `self` is an argument like any other."""
        with pytest.raises(UnstableArgument) as caught:
            keys(Thing.method)(Thing(), 1)
        assert parts_of(caught) == (f"{__name__}.Thing.method", "self", f"{__name__}.Thing")
        assert keys(Thing.method, ignore=("self",))(Thing(), 1) == f"{__name__}.Thing.method(x=1)"

    def test_unstable_keyword(self) -> None:
        """Of `**kwargs` the whole is named."""
        with pytest.raises(UnstableArgument) as caught:
            keys(anything)(1, z=object())
        assert parts_of(caught)[1] == "more"

    def test_arguments_that_do_not_fit(self) -> None:
        """As the function itself would say."""
        for call in (
            lambda key: key(),
            lambda key: key(1, 2, 3),
            lambda key: key(1, a=1),
            lambda key: key(1, z=1),
        ):
            with pytest.raises(TypeError, match="argument"):
                call(keys(plain))

    def test_function_of_the_main_module(self, tmp_path: Path) -> None:
        """Two scripts that share a cache share no keys, although both call themselves `__main__`."""
        program = (
            "from quickcache_core.decorators.keys import Keys\n"
            "def f(): pass\n"
            "print(Keys(f, None, (), None).key((), {}))\n"
        )
        made = set()
        for name in ("one.py", "two.py"):
            (tmp_path / name).write_text(program)
            made.add(
                subprocess.run(
                    [sys.executable, tmp_path / name],
                    env={"PYTHONPATH": str(Path(__file__).parents[2])},
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.strip()
            )
        assert made == {f"{tmp_path / name}.f()" for name in ("one.py", "two.py")}


class TestTemplates:
    @pytest.mark.parametrize(
        ("template", "arguments", "key"),
        [
            ("fixed", (1,), "fixed"),
            ("user:{a}", (7,), "user:7"),
            ("user:{a}", ("7",), "user:7"),
            ("user:{a}", ("jo@example.org",), "user:jo@example.org"),
            ("user:{a}", ("bob:admin",), "user:bob:admin"),
            ("user:{a}:{b}", ("bob:admin", 1), "user:bob%3Aadmin:1"),
            ("{b}-{a}", (-1, -2), "%2D2--1"),
            ("u:{a}", (None,), "u:None"),
            ("u:{a}", ("None",), "u:%4Eone"),
            ("u:{a}", (True,), "u:True"),
            ("u:{a}", ("a b\n",), "u:a%20b%0A"),
            ("u:{a}", ("50%",), "u:50%25"),
            ("u:{a}", (1.5,), "u:1.5"),
            ("u:{a}", (Decimal("1.50"),), "u:1.50"),
            ("u:{a}", (UUID(int=5),), "u:00000000-0000-0000-0000-000000000005"),
            ("u:{a}", (dt.date(2026, 1, 2),), "u:2026-01-02"),
            ("u:{a}", ([1, "x y"],), "u:~[1,'x\\x20y']"),
            ("u:{a.pk}", (SimpleNamespace(pk=3),), "u:3"),
            ("u:{a.b.c}", (SimpleNamespace(b=SimpleNamespace(c="x")),), "u:x"),
            ("u:{a[name]}:{b[0]}", ({"name": "x"}, [5]), "u:x:5"),
            ("u:{a:%Y-%m}", (dt.date(2026, 1, 2),), "u:2026-01"),
            ("u:{a:03d}", (7,), "u:007"),
            ("{{u}}:{a}", (7,), "{u}:7"),
            ("ä{a}–{b}", ("x–y", "z–"), "äx%u2013;y–z–"),
        ],
    )
    def test_text(self, template: str, arguments: tuple[Any, ...], key: str) -> None:
        """What stands for itself does so; what could be taken for something else is escaped."""
        assert keys(plain, template)(*arguments) == key

    @pytest.mark.parametrize(
        ("template", "part"),
        [
            ("user:{uid}", r"no parameter 'uid'; there are: a, b"),
            ("user:{}", "no parameter ''"),
            ("user:{0}", "no parameter '0'"),
            ("user:{a!r}", "no conversion"),
            ("user:{a:{b}}", "no conversion"),
            ("user:{a}{b}", "put a ':' or the like between"),
            ("user:{a}and{b}", "put a ':' or the like between"),
            ("user:{a", "written twice"),
            ("user:a}", "written twice"),
            ("user:{a.}", "no parameter"),
            ("user:{a.b()}", "no parameter"),
        ],
    )
    def test_mistakes(self, template: str, part: str) -> None:
        """They are found when the function is decorated, with template and function in the message."""
        with pytest.raises(ConfigError, match=part) as caught:
            keys(plain, template)
        assert f"{__name__}.plain" in str(caught.value)
        assert caught.value.field == "key"
        assert caught.value.value == template

    def test_object_in_a_template(self) -> None:
        """Its text would be an address: an error that names the argument."""
        for template in ("u:{a}", "u:{a.x}", "u:{a:>10}"):
            with pytest.raises(UnstableArgument) as caught:
                keys(plain, template)(SimpleNamespace(x=Thing()))
            assert parts_of(caught)[:2] == (f"{__name__}.plain", "a")

    def test_ignore_beside_a_template(self) -> None:
        """A template says already what counts."""
        with pytest.raises(ConfigError, match="ignore"):
            keys(plain, "t:{a}", ignore=("b",))

    def test_tags_are_not_escaped(self) -> None:
        """Whoever invalidates a tag writes it as it is."""
        template = Template("tags", "name:{a}/{b}", "f", ("a", "b"), exact=False)
        assert template.render(["a b/%", None]) == "name:a b/%/None"


values = (
    st.none() | st.booleans() | st.integers() | st.text(":-%~a1. –", max_size=4) | st.lists(st.text("a:'%~"))
)


@given(values, values, values, values)
def test_fields_do_not_run_into_each_other(a: Any, b: Any, c: Any, d: Any) -> None:
    """Two pairs of arguments have one key if their texts are the same one by one, and only then."""

    def alike(one: Any, other: Any) -> bool:
        numbers = {type(one), type(other)} == {int, str}
        return str(one) == str(other) if numbers else type(one) is type(other) and one == other

    for template in ("{a}:{b}", "{a}-{b}", "{a}–{b}", "x{a}. {b}"):
        key = keys(plain, template)
        assert (key(a, b) == key(c, d)) == (alike(a, c) and alike(b, d))


class TestFunctions:
    @pytest.mark.parametrize(
        ("ignore", "part"), [(("z",), "no parameter 'z'; there are: a, b"), ("ab", "a tuple"), (5, "a tuple")]
    )
    def test_unknown_names_to_ignore(self, ignore: Any, part: str) -> None:
        """A name that isn't a parameter would never have an effect."""
        with pytest.raises(ConfigError, match=part):
            keys(plain, ignore=ignore)

    @pytest.mark.parametrize("version", [True, "", 1.5, object()])
    def test_version_of_a_wrong_type(self, version: Any) -> None:
        """A version is a number or a text."""
        with pytest.raises(ConfigError, match="version"):
            keys(plain, version=version)

    @pytest.mark.parametrize(
        ("tags", "part"),
        [("user:{a}", "a list or tuple"), ((5,), "5 is none"), (("u:{z}",), "no parameter 'z'")],
    )
    def test_wrong_tags(self, tags: Any, part: str) -> None:
        """As with templates of keys."""
        with pytest.raises(ConfigError, match=part):
            Keys(plain, None, (), None).tags(tags)

    def test_closures(self) -> None:
        """A local function that uses variables around it is another one each time: its name is no key."""
        closure, simple, factorial = make_function(5)
        with pytest.raises(ConfigError, match=r"number.*key or a namespace"):
            check_function(closure, has_key=False, has_namespace=False)
        check_function(closure, has_key=True, has_namespace=False)
        check_function(closure, has_key=False, has_namespace=True)
        check_function(simple, has_key=False, has_namespace=False)
        check_function(factorial, has_key=False, has_namespace=False)
        check_function(decorated_function, has_key=False, has_namespace=False)
        with pytest.raises(ConfigError, match="number"):
            check_function(decorated(closure), has_key=False, has_namespace=False)

    @pytest.mark.parametrize("function", [lambda: 1, partial(plain, 1)])
    def test_no_name(self, function: Callable[..., Any]) -> None:
        """What has no name of its own needs a key."""
        with pytest.raises(ConfigError, match="give a key"):
            check_function(function, has_key=False, has_namespace=False)
        check_function(function, has_key=True, has_namespace=False)

    @pytest.mark.parametrize("function", [5, "f", None, Thing])
    def test_no_function(self, function: Any) -> None:
        """The message shows how to write it."""
        with pytest.raises(TypeError, match=r"@cached\(cache\)"):
            check_function(function, has_key=True, has_namespace=True)
