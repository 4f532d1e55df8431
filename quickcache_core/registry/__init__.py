"""Names for what users can bring along: eviction policies and serializers."""

from __future__ import annotations

import importlib
from typing import Any

from quickcache_core.errors import ConfigError

__all__ = ["Registry", "eviction_policies", "serializers"]


class Registry:
    """What a name in the settings stands for. Names are case-insensitive.

    A name is looked for among what was registered, then among the entry points of `entry_point_group` that
    installed distributions declare. The latter are imported only when somebody asks for them by name.
    """

    def __init__(self, kind: str, entry_point_group: str) -> None:
        self.kind = kind
        self.entry_point_group = entry_point_group
        self._field = kind.replace(" ", "_")
        self._base: type = object
        self._classes: dict[str, type] = {}

    def accepts(self, base: type) -> None:
        """Take only subclasses of `base` from now on.

        The module of the base class says so, because the registry may not import it.
        """
        self._base = base
        for cls in self._classes.values():
            self._check_base(cls)

    def register(self, name: str, cls: type) -> None:
        """Give `cls` a name.

        The same class again under its name is fine. Raises `TypeError` for what is no subclass of the
        accepted base, `ConfigError` for a name that another class has or that reads like an import path.
        """
        self._check_base(cls)
        taken_by = self._classes.setdefault(self._checked_name(name), cls)
        if taken_by is not cls:
            raise ConfigError(
                self._field,
                name,
                f"the name belongs to {_path(taken_by)}, so {_path(cls)} can't have it; choose another name",
            )

    def available(self) -> list[str]:
        """All names that resolve, sorted. Reads the metadata of the installed distributions."""
        return sorted(self._classes.keys() | {point.name.lower() for point in self._entry_points()})

    def resolve(self, spec: object, *, field: str | None = None) -> type[Any]:
        """The class that `spec` means: a name, a class, "package.module:Class" or "package.module.Class".

        `field` is the setting that the spec comes from, named by the `ConfigError` of a spec without meaning.
        """
        field = field or self._field
        cls = self._from_string(spec.strip(), field) if isinstance(spec, str) else spec
        if not isinstance(cls, type):
            raise ConfigError(field, spec, f"give one of {self._names()}, or a class, or 'module:Class'")
        if not issubclass(cls, self._base):
            raise ConfigError(
                field, spec, f"{_path(cls)} is no {self.kind}; derive it from {_path(self._base)}"
            )
        if missing := getattr(cls, "__abstractmethods__", None):
            raise ConfigError(
                field, spec, f"{_path(cls)} is abstract; implement {', '.join(sorted(missing))}"
            )
        return cls

    def create(self, spec: object, *, field: str | None = None) -> Any:
        """An instance of what `spec` means. An instance is returned as it is."""
        if self._base is not object and isinstance(spec, self._base):
            return spec
        field = field or self._field
        cls = self.resolve(spec, field=field)
        try:
            return cls()
        except ConfigError as error:
            # The same error under the name of the setting; what caused it stays its cause.
            raise ConfigError(field, spec, error.remedy) from error.__cause__
        except Exception as error:
            raise ConfigError(
                field,
                spec,
                f"{_path(cls)}() failed ({type(error).__name__}: {error}); give one that needs no arguments, "
                "or pass a finished instance where the setting takes one",
            ) from error

    def name_of(self, cls: type) -> str:
        """What to call `cls` where it has to be found again: its name here, else "module:Class"."""
        for name, registered in list(self._classes.items()):
            if registered is cls:
                return name
        return f"{cls.__module__}:{cls.__qualname__}"

    def _check_base(self, cls: object) -> None:
        if not isinstance(cls, type) or not issubclass(cls, self._base):
            raise TypeError(f"{self.kind} must be a class derived from {_path(self._base)}, got {cls!r}")

    def _checked_name(self, name: object) -> str:
        if not isinstance(name, str) or not name.strip() or "." in name or ":" in name:
            raise ConfigError(
                self._field,
                name,
                "a name is a word without '.' and ':', those mark an import path; choose another",
            )
        return name.strip().lower()

    def _from_string(self, spec: str, field: str) -> object:
        if ":" in spec or "." in spec:
            return self._from_path(spec, field)
        cls = self._classes.get(spec.lower())
        return cls if cls is not None else self._from_entry_point(spec, field)

    def _from_path(self, spec: str, field: str) -> object:
        module, _, attribute = spec.partition(":") if ":" in spec else spec.rpartition(".")
        try:
            found: object = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise ConfigError(
                field,
                spec,
                f"can't be imported ({type(error).__name__}: {error}); check module and class name",
            ) from error
        return found

    def _from_entry_point(self, spec: str, field: str) -> object:
        points = [point for point in self._entry_points() if point.name.lower() == spec.lower()]
        if not points:
            raise ConfigError(field, spec, self._unknown(spec))
        if len({point.value for point in points}) > 1:
            values = " and ".join(sorted({point.value for point in points}))
            raise ConfigError(
                field,
                spec,
                f"several installed packages offer this name: {values}; give the one as 'module:Class'",
            )
        try:
            return points[0].load()
        except Exception as error:
            raise ConfigError(
                field,
                spec,
                f"the entry point {points[0].value} can't be loaded ({type(error).__name__}: {error}); "
                "repair or remove the package that declares it",
            ) from error

    def _unknown(self, spec: str) -> str:
        from difflib import get_close_matches

        close = get_close_matches(spec.lower(), self.available(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown {self.kind}; {hint}There are {self._names()}; your own: a class or 'module:Class'"

    def _names(self) -> str:
        return ", ".join(repr(name) for name in self.available())

    def _entry_points(self) -> Any:
        # Imported here: most processes name a built-in and never need it, and it costs milliseconds.
        from importlib.metadata import entry_points

        return entry_points(group=self.entry_point_group)


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


eviction_policies = Registry("eviction policy", "quickcache.eviction_policies")
serializers = Registry("serializer", "quickcache.serializers")
