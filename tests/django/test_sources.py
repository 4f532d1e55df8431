"""A model as the source of a cache."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import IntegrityError, connections, models
from django.test.utils import CaptureQueriesContext

from quickcache_core import MISSING, ConfigError, QuickCache
from quickcache_core.sources import SourcedCache
from quickcache_django.sources import ModelSource

PATIENCE = 30.0


class Shelf(models.Model):
    name = models.CharField(max_length=20)

    class Meta:
        app_label = "library"


class Book(models.Model):
    isbn = models.CharField(max_length=20, unique=True)
    title = models.CharField(max_length=50)
    pages = models.PositiveIntegerField(null=True)
    shelf = models.ForeignKey(Shelf, models.CASCADE, db_column="on_shelf")

    class Meta:
        app_label = "library"


class Tin(models.Model):
    label = models.CharField(max_length=20, unique=True, db_collation="NOCASE")
    grams = models.IntegerField()

    class Meta:
        app_label = "library"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[str]:
    """The alias of a database in a file, which all threads can use. Threads remember where an alias leads, so
    each test has its own.
    """
    alias = f"library-{tmp_path.name}"
    connections.settings[alias] = {
        **connections.settings["default"],
        "NAME": str(tmp_path / "library.sqlite3"),
    }
    connection = connections[alias]
    with connection.schema_editor() as editor:
        for model in (Shelf, Book, Tin, Session):
            editor.create_model(model)
    Shelf.objects.using(alias).create(pk=1, name="novels")
    Book.objects.using(alias).create(isbn="1", title="Emma", pages=474, shelf_id=1)
    Book.objects.using(alias).create(isbn="2", title="Persuasion", shelf_id=1)
    yield alias
    connection.close()
    del connections[alias]
    del connections.settings[alias]


def titles(alias: str) -> dict[str, str]:
    return dict(Book.objects.using(alias).values_list("isbn", "title"))


def test_by_a_unique_field(library: str) -> None:
    """Values are dictionaries of the other fields, but for a primary key that the database gives."""
    source = ModelSource(Book, "isbn", using=library)
    assert source.load("1") == {"title": "Emma", "pages": 474, "shelf_id": 1}
    assert source.load("7") is MISSING
    source.store_many(
        {
            "1": {"title": "Emma!", "pages": 475, "shelf_id": 1},
            "3": {"title": "Sanditon", "pages": None, "shelf_id": 1},
        }
    )
    source.remove("2")
    source.remove("2")
    assert titles(library) == {"1": "Emma!", "3": "Sanditon"}
    assert Book.objects.using(library).get(isbn="1").pk == 1


def test_spellings_of_one_key(library: str) -> None:
    """Each that is asked for has the row."""
    source = ModelSource(Book, fields=["title"], using=library)
    assert source.load_many(["1", "01", "2", "7"]) == {
        "1": {"title": "Emma"},
        "01": {"title": "Emma"},
        "2": {"title": "Persuasion"},
    }


def test_keys_that_only_the_database_takes_for_equal(library: str) -> None:
    """A column that compares without case has one row for both; for keys that have none nothing is asked
    again."""
    Tin.objects.using(library).create(label="tea", grams=250)
    Tin.objects.using(library).create(label="Salt", grams=500)
    source = ModelSource(Tin, "label", using=library)
    assert (source.load("Tea"), source.load("te")) == ({"grams": 250}, MISSING)
    for keys in (["tea", "Tea"], ["TEA", "salt"]):
        assert source.load_many([*keys, "x"]).keys() == set(keys)
    with CaptureQueriesContext(connections[library]) as queries:
        assert source.load_many(["tea", "x", "y"]).keys() == {"tea"}
    assert len(queries) == 1


def test_by_primary_key(library: str) -> None:
    """Keys are its text; what can't be one is a row that doesn't exist."""
    source = ModelSource(Book, fields=["title", "isbn", "pages", "shelf_id"], using=library)
    assert source.load_many(["1", "2", "99", "x"]).keys() == {"1", "2"}
    source.store("7", {"title": "T", "isbn": "9", "pages": 1, "shelf_id": 1})
    assert Book.objects.using(library).get(pk=7).isbn == "9"
    source.remove("x")


def test_some_fields(library: str) -> None:
    """Only these are read and written; the others of a row that is there stay."""
    source = ModelSource(Shelf, fields=["name"], using=library)
    source.store("1", {"name": "prose"})
    assert source.load("1") == {"name": "prose"}
    with pytest.raises(TypeError, match="dictionary of name"):
        source.store("1", {"title": "x"})


def test_a_text_as_primary_key(library: str) -> None:
    """Such a key isn't given by the database; here the sessions'."""
    source = ModelSource(Session, using=library)
    end = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    source.store("abc", {"session_data": "d", "expire_date": end})
    assert source.load("abc") == {"session_data": "d", "expire_date": end}


def test_queries(library: str) -> None:
    """One to read many rows, one to write them, whatever their number."""
    source = ModelSource(Book, "isbn", using=library)
    with CaptureQueriesContext(connections[library]) as queries:
        source.load_many([str(number) for number in range(200)])
    assert len(queries) == 1
    books = {str(number): {"title": "T", "pages": 1, "shelf_id": 1} for number in range(20)}
    with CaptureQueriesContext(connections[library]) as queries:
        source.store_many(books)
    statements = [query["sql"].split()[0] for query in queries.captured_queries]
    assert statements.count("INSERT") == 1
    assert len(statements) <= 3
    assert len(titles(library)) == 20


def test_a_batch_is_written_as_a_whole(library: str) -> None:
    """Or not at all."""
    source = ModelSource(Book, "isbn", using=library)
    bad: dict[str, Any] = {"title": None, "pages": 1, "shelf_id": 1}
    with pytest.raises(IntegrityError):
        source.store_many({"1": {"title": "x", "pages": 1, "shelf_id": 1}, "5": bad})
    assert titles(library) == {"1": "Emma", "2": "Persuasion"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"key_field": "author"}, "no such field"),
        ({"key_field": "title"}, "unique field"),
        ({"key_field": "book"}, "no such field"),
        ({"fields": ["author"]}, "has isbn, title, pages, shelf_id"),
    ],
)
def test_wrong_names(arguments: dict[str, Any], complaint: str) -> None:
    """They are refused when the source is made."""
    with pytest.raises(ConfigError, match=complaint):
        ModelSource(Book, **arguments)


@pytest.mark.parametrize("writes", ["through", "around", "behind"])
def test_behind_a_cache(library: str, writes: Any) -> None:
    """All strategies, from threads and tasks; the connections of background threads are closed."""
    source = ModelSource(Book, "isbn", using=library)
    options = {"max_delay": 0.01} if writes == "behind" else {}

    async def main() -> None:
        async with SourcedCache(QuickCache(), source, writes=writes, **options) as sourced:
            emma = await sourced.aget("1")
            await sourced.aset("1", {**emma, "title": "Emma?"})
            await sourced.adelete("2")
            await sourced.aset_many({"4": emma, "5": emma})
            assert (await sourced.aget("1"))["title"] == "Emma?"

    asyncio.run(main())
    assert titles(library) == {"1": "Emma?", "4": "Emma", "5": "Emma"}
    sourced = SourcedCache(QuickCache(), source, writes=writes, **options)
    sourced.set("1", {"title": "E", "pages": None, "shelf_id": 1})
    assert sourced.close(PATIENCE)
    assert titles(library)["1"] == "E"
    connections[library].close()
    if (open_files := Path("/proc/self/fd")).exists():
        assert not [
            one
            for one in open_files.iterdir()
            if one.is_symlink() and "library.sqlite3" in str(one.readlink())
        ]
