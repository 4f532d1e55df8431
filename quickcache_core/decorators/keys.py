"""From the arguments of a call to a key, and to tags."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from quickcache_core.decorators.parameters import REQUIRED, Parameters
from quickcache_core.decorators.template import Template
from quickcache_core.errors import ConfigError
from quickcache_core.fingerprint import (
    LONGEST_KEY,
    SIMPLE,
    NoStableForm,
    module_name,
    shortened,
    stable_form,
    unstable,
)

Tags = Iterable[str] | Callable[..., Iterable[str]]
"""Tags with fields, or a function that takes the arguments of the call and gives them."""


def name_of(function: Callable[..., Any]) -> str:
    """How keys and errors call a function; the same in every process that runs it."""
    module = getattr(function, "__module__", None) or "?"
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{module_name(module)}.{name}"


class Keys:
    """Makes the keys of one function.

    Without a `template` a key is the function's name and the stable forms of all arguments but those to
    `ignore`, whichever way they were given and defaults included. `version` tells the results of this code
    from those of a former one. Keys that are too long end in a digest.

    Raises `ConfigError` for what can't work.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        template: str | None,
        ignore: Collection[str],
        version: str | int | None,
    ) -> None:
        self.name = name_of(function)
        self.parameters = Parameters(function)
        self._version = "" if version is None else f"~v{_version(version)}"
        self._template = None if template is None else self.template("key", template)
        _check_ignored(ignore, self.name, self.parameters.names, with_template=template is not None)
        self._counted = [place for place, name in enumerate(self.parameters.names) if name not in ignore]
        names = [self.parameters.names[place] for place in self._counted]
        self._counts_all = len(names) == len(self.parameters.names)
        arguments = ",".join(f"{name}=%s" for name in names)
        self._head = f"{self.name}{self._version}("
        self._frame = self._head.replace("%", "%%") + f"{arguments})"
        self._frames = self._filled_frames() if self._counts_all else {}
        self.key = self._by_arguments() if self._template is None else self._by_template(self._template)
        """`key(args, kwargs)`. Raises `TypeError` if the function can't be called like that, and
        `UnstableArgument`."""

    def template(self, setting: str, text: str, *, exact: bool = True) -> Template:
        return Template(setting, text, self.name, self.parameters.names, exact=exact)

    def _by_template(self, template: Template) -> Callable[[tuple[Any, ...], Mapping[str, Any]], str]:
        render, values, version = template.render, self.parameters.values, self._version

        def key_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
            key = render(values(args, kwargs)) + version
            return key if len(key) <= LONGEST_KEY else shortened(key)

        return key_of

    def _by_arguments(self) -> Callable[[tuple[Any, ...], Mapping[str, Any]], str]:
        frames, in_general = self._frames, self._by_all_arguments

        def key_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
            if kwargs:
                return in_general(args, kwargs)
            # What most calls are like, in a third of the time of the other way.
            try:
                count = len(args)
                if count == 1:
                    key = frames[1] % SIMPLE[type(args[0])](args[0])
                elif count == 2:  # so are many, and a list takes half as long again
                    first, second = args
                    key = frames[2] % (SIMPLE[type(first)](first), SIMPLE[type(second)](second))
                else:
                    key = frames[count] % tuple([SIMPLE[type(value)](value) for value in args])
            except (KeyError, ValueError):
                pass
            else:
                return key if len(key) <= LONGEST_KEY else shortened(key)
            # Not within the `except`: what this raises would bring the error of the short way with it.
            return in_general(args, kwargs)

        return key_of

    def _by_all_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        values = self.parameters.values(args, kwargs)
        if not self._counts_all:
            values = [values[place] for place in self._counted]
        try:
            key = self._frame % tuple([stable_form(value) for value in values])
        except NoStableForm as error:
            raise self._unstable(values) from error
        return key if len(key) <= LONGEST_KEY else shortened(key)

    def _filled_frames(self) -> dict[int, str]:
        """By the number of positional arguments, if there are no others: the frame with the rest filled in.
        Only where all defaults have simple forms, which can't change.
        """
        defaults = self.parameters.defaults
        if any(type(one) not in SIMPLE for one in defaults if one is not REQUIRED):
            return {}
        frames = {}
        for count in self.parameters.possible_counts():
            rest = [stable_form(one).replace("%", "%%") for one in defaults[count:]]
            pairs = zip(self.parameters.names, ["%s"] * count + rest, strict=True)
            frames[count] = self._head.replace("%", "%%") + ",".join(map("=".join, pairs)) + ")"
        return frames

    def _unstable(self, values: Sequence[Any]) -> Exception:
        for place, value in zip(self._counted, values, strict=True):
            try:
                stable_form(value)
            except NoStableForm as error:
                return unstable(self.name, self.parameters.names[place], error)
        # It has a form by now: another thread changed it meanwhile.
        return RuntimeError(f"{self.name}: an argument changed while a key was made of it")

    def tags(self, tags: Tags) -> Callable[[tuple[Any, ...], Mapping[str, Any]], tuple[str, ...]] | None:
        """What makes the tags of a call; None if there are none."""
        if callable(tags):
            function = tags
            return lambda args, kwargs: tuple(function(*args, **kwargs))
        if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
            raise ConfigError("tags", tags, 'give a list or tuple of strings, such as ("user:{user_id}",)')
        texts = list(tags)
        for text in texts:
            if not isinstance(text, str):
                raise ConfigError("tags", texts, f"a tag is a string, {text!r} is none")
        templates = [self.template("tags", text, exact=False) for text in texts]
        if not templates:
            return None
        if all(template.is_constant for template in templates):
            constant = tuple(template.render(()) for template in templates)
            return lambda args, kwargs: constant

        def rendered(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
            values = self.parameters.values(args, kwargs)
            return tuple([template.render(values) for template in templates])

        return rendered


def check_function(function: object, *, has_key: bool, has_namespace: bool) -> None:
    """Whether the results of a function can be cached under its name. Raises `TypeError`, `ConfigError`."""
    if not callable(function) or inspect.isclass(function):
        raise TypeError(
            f"cached: {function!r} is no function; write @cached(cache) above a function or a method"
        )
    name = name_of(function)
    inner = inspect.unwrap(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise TypeError(f"cached: {name} is a generator, which can be read once only; return a list instead")
    if has_key:
        return
    if not hasattr(function, "__qualname__") or "<lambda>" in name:
        raise ConfigError("key", None, f"{name} has no name of its own; give a key, such as 'report:{{day}}'")
    variables: tuple[str, ...] = getattr(getattr(inner, "__code__", None), "co_freevars", ())
    free = set(variables) - {"__class__", getattr(inner, "__name__", "")}
    if "<locals>" in name and free and not has_namespace:
        raise ConfigError(
            "key",
            None,
            f"{name} is made anew by each call of the function around it, whose variables it uses "
            f"({', '.join(sorted(free))}): its name doesn't say what it computes. Make them arguments, or "
            "give a key or a namespace that does",
        )


def is_method(function: Callable[..., Any]) -> bool:
    """Whether it is defined in the body of a class."""
    return "." in getattr(function, "__qualname__", "").rpartition("<locals>.")[2]


def _check_ignored(ignore: object, function: str, names: Sequence[str], *, with_template: bool) -> None:
    if isinstance(ignore, str) or not isinstance(ignore, Collection):
        raise ConfigError("ignore", ignore, 'give a tuple of names, such as ("self",)')
    for name in ignore:
        if name not in names:
            known = ", ".join(names) or "none"
            raise ConfigError("ignore", ignore, f"{function} has no parameter {name!r}; there are: {known}")
    if ignore and with_template:
        raise ConfigError(
            "ignore", ignore, "a key names the arguments that count; leave out the others there"
        )


def _version(version: object) -> str:
    if isinstance(version, bool) or not isinstance(version, str | int) or version == "":
        raise ConfigError("version", version, "give a number or a string")
    return str(version)
