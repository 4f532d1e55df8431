from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import quickcache_core  # noqa: F401 - brings in the built-in names
from quickcache_core.errors import ConfigError
from quickcache_core.registry import Registry, eviction_policies, serializers
from quickcache_core.registry.decorators import register_eviction_policy, register_serializer
from quickcache_core.serializer import BaseSerializer, JsonSerializer, MsgpackSerializer, PickleSerializer


class Plugin:
    pass


class One(Plugin):
    pass


class Two(Plugin):
    class Inner(Plugin):
        pass


@pytest.fixture
def registry() -> Registry:
    made = Registry("plug-in thing", "quickcache.test_things")
    made.accepts(Plugin)
    return made


class TestNames:
    def test_registered_name(self, registry: Registry) -> None:
        """A name resolves to its class, however it is spelled."""
        registry.register("One", One)
        assert registry.resolve("one") is registry.resolve(" ONE ") is One

    def test_same_class_again(self, registry: Registry) -> None:
        """Registering the same class again is fine, also under a second name."""
        registry.register("one", One)
        registry.register("ONE", One)
        registry.register("uno", One)
        assert registry.available() == ["one", "uno"]

    def test_taken_name(self, registry: Registry) -> None:
        """Another class under a taken name is an error that names both, and the first one keeps it."""
        registry.register("one", One)
        with pytest.raises(ConfigError, match=r"test_registry\.One.*test_registry\.Two"):
            registry.register("One", Two)
        assert registry.resolve("one") is One

    @pytest.mark.parametrize("cls", [int, "One", One(), None])
    def test_not_a_subclass(self, registry: Registry, cls: object) -> None:
        """Only subclasses of the accepted base get a name."""
        with pytest.raises(TypeError, match="Plugin"):
            registry.register("bad", cls)  # type: ignore[arg-type]
        assert registry.available() == []

    def test_base_comes_later(self) -> None:
        """What was registered before the base was known is checked then."""
        registry = Registry("thing", "quickcache.test_things")
        registry.register("int", int)
        with pytest.raises(TypeError):
            registry.accepts(Plugin)

    @pytest.mark.parametrize("name", ["", "  ", "a.b", "a:b", None, 3])
    def test_bad_name(self, registry: Registry, name: object) -> None:
        """A name that could be taken for an import path, or is none, is refused."""
        with pytest.raises(ConfigError):
            registry.register(name, One)  # type: ignore[arg-type]

    def test_name_of(self, registry: Registry) -> None:
        """A class is called by its name, or by where it is."""
        registry.register("one", One)
        assert registry.name_of(One) == "one"
        assert registry.resolve(registry.name_of(Two.Inner)) is Two.Inner


class TestOtherSpecs:
    def test_class(self, registry: Registry) -> None:
        """A class means itself."""
        assert registry.resolve(One) is One

    @pytest.mark.parametrize("separator", [":", "."])
    def test_import_path(self, registry: Registry, separator: str) -> None:
        """Both spellings of an import path work."""
        assert registry.resolve(f"{__name__}{separator}One") is One

    def test_nested_class(self, registry: Registry) -> None:
        """Behind a colon the path may go into a class."""
        assert registry.resolve(f"{__name__}:Two.Inner") is Two.Inner

    def test_instance(self, registry: Registry) -> None:
        """`create` keeps an instance and makes one of everything else."""
        one = One()
        assert registry.create(one) is one
        assert type(registry.create(f"{__name__}:One")) is One

    @pytest.mark.parametrize(
        "spec", ["no.such:Thing", "os:nothing", "os.nothing", ":", ".", "a:", ".One", ":One"]
    )
    def test_path_to_nowhere(self, registry: Registry, spec: str) -> None:
        """An import that fails says what failed, and keeps the cause."""
        with pytest.raises(ConfigError, match="can't be imported") as caught:
            registry.resolve(spec)
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize(
        "spec", [int, "os:sep", "os:PathLike", "builtins.int", None, 3, "", object(), ["one"]]
    )
    def test_no_plugin(self, registry: Registry, spec: object) -> None:
        """What is no class of the right kind is refused, with the setting that it came from."""
        with pytest.raises(ConfigError) as caught:
            registry.resolve(spec, field="some_field")
        assert caught.value.field == "some_field"
        assert caught.value.value == spec

    def test_abstract_class(self) -> None:
        """An abstract class is refused when things are wired, naming what is missing."""
        with pytest.raises(ConfigError, match=r"abstract.*deserialize.*serialize"):
            serializers.resolve(BaseSerializer)

    def test_constructor_with_arguments(self, registry: Registry) -> None:
        """A class that can't be made without arguments asks for an instance."""

        class Needy(Plugin):
            def __init__(self, something: int) -> None: ...

        with pytest.raises(ConfigError, match="instance") as caught:
            registry.create(Needy)
        assert isinstance(caught.value.__cause__, TypeError)


class TestUnknownNames:
    def test_lists_and_suggests(self) -> None:
        """An unknown name lists what exists and suggests the nearest."""
        with pytest.raises(
            ConfigError, match=r"did you mean 'pickle'.*'json', 'msgpack', 'pickle'"
        ) as caught:
            serializers.resolve("pikle", field="metrics_serializer")
        assert caught.value.field == "metrics_serializer"
        assert isinstance(caught.value, ValueError)

    def test_far_from_everything(self) -> None:
        """Where nothing is near, nothing is suggested."""
        with pytest.raises(ConfigError) as caught:
            serializers.resolve("xxxxxxx")
        assert "did you mean" not in str(caught.value)


class TestEntryPoints:
    @pytest.fixture(autouse=True)
    def plugins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Two installed distributions that offer things."""
        for name, lines in {
            "first": ["Far = HERE:One", "both = HERE:One", "lazy = lazy_plugin:Thing", "broken = no_such:X"],
            "second": ["both = HERE:Two", "far = HERE:One", "wrong = builtins:int"],
        }.items():
            folder = tmp_path / f"{name}-1.0.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            (folder / "entry_points.txt").write_text(
                "\n".join(["[quickcache.test_things]", *lines]).replace("HERE", __name__)
            )
        (tmp_path / "lazy_plugin.py").write_text(
            f"from {__name__} import Plugin\nclass Thing(Plugin): pass\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        yield
        sys.modules.pop("lazy_plugin", None)

    def test_found(self, registry: Registry) -> None:
        """A name that nobody registered is looked for among the entry points, whatever its case."""
        assert registry.resolve("far") is registry.resolve("FAR") is One

    def test_registered_first(self, registry: Registry) -> None:
        """What was registered hides an entry point of the same name."""
        registry.register("far", Two)
        assert registry.resolve("far") is Two

    def test_imported_when_asked_for(self, registry: Registry) -> None:
        """A plug-in that nobody names isn't imported, also not to list it."""
        assert "lazy" in registry.available()
        assert "lazy_plugin" not in sys.modules
        assert registry.resolve("lazy").__name__ == "Thing"

    def test_offered_twice(self, registry: Registry) -> None:
        """Two packages that mean different things by one name are an error, not a matter of luck."""
        with pytest.raises(ConfigError, match=r"One and .*Two"):
            registry.resolve("both")

    def test_broken(self, registry: Registry) -> None:
        """A plug-in that can't be imported names the entry point and keeps the cause."""
        with pytest.raises(ConfigError, match="no_such:X") as caught:
            registry.resolve("broken")
        assert isinstance(caught.value.__cause__, ImportError)

    def test_wrong_kind(self, registry: Registry) -> None:
        """An entry point to something else is refused."""
        with pytest.raises(ConfigError, match="int"):
            registry.resolve("wrong")

    def test_metadata_untouched_for_registered_names(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A known name costs no search through the installed distributions."""

        def fail(**_: object) -> None:
            raise AssertionError("searched")

        registry.register("one", One)
        monkeypatch.setattr(metadata, "entry_points", fail)
        assert registry.resolve("one") is One
        assert registry.resolve(f"{__name__}:One") is One


class TestTheTwoRegistries:
    def test_built_in_serializers(self) -> None:
        """The built-in formats have their names."""
        found = [serializers.resolve(name) for name in ("json", "pickle", "msgpack")]
        assert found == [JsonSerializer, PickleSerializer, MsgpackSerializer]

    def test_groups(self) -> None:
        """Other packages offer theirs in these groups."""
        assert eviction_policies.entry_point_group == "quickcache.eviction_policies"
        assert serializers.entry_point_group == "quickcache.serializers"

    def test_decorator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The decorator names a class and gives it back as it was."""
        monkeypatch.setattr(serializers, "_classes", dict(serializers._classes))

        @register_serializer("Decorated")
        class Mine(JsonSerializer):
            pass

        assert serializers.resolve("decorated") is Mine
        with pytest.raises(ValueError, match="belongs to"):
            register_serializer("decorated")(JsonSerializer)

    @pytest.mark.parametrize("decorator", [register_eviction_policy, register_serializer])
    def test_decorated_stranger(self, decorator: object) -> None:
        """A class that isn't derived from the base can't be registered."""
        with pytest.raises(TypeError, match="derived from"):
            decorator("stranger")(Plugin)  # type: ignore[operator]
