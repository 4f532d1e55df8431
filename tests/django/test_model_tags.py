"""Entries leave when the rows change that they were made of, and others don't."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from catalog.models import (
    Bargain,
    Depot,
    Gadget,
    Importer,
    Label,
    Note,
    Outlet,
    Product,
    Review,
    Stamped,
    Vendor,
    Visit,
)
from django.core.cache import caches
from django.core.exceptions import EmptyResultSet, ImproperlyConfigured
from django.db import connection, connections, models, transaction
from django.db.models import Count, Exists, F, OuterRef, Prefetch, Q, Subquery
from django.db.models.expressions import RawSQL
from django.db.models.signals import post_delete, post_save
from django.test import TestCase, override_settings
from django.test.utils import CaptureQueriesContext, isolate_apps

from quickcache_django import QuickCache
from quickcache_django.model_tags import changed, invalidate_on_change, tags_for

TABLES = (Vendor, Depot, Outlet, Label, Product, Gadget, Review, Note, Visit)


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    with connection.schema_editor() as editor:
        for model in TABLES:
            editor.create_model(model)
    yield
    with connection.schema_editor() as editor:
        for model in reversed(TABLES):
            editor.delete_model(model)


@pytest.fixture
def cache(default_cache: QuickCache) -> QuickCache:
    """Where the models invalidate tags."""
    return default_cache


def sql(queryset: Any) -> str:
    try:
        return str(queryset.all().query)
    except EmptyResultSet:
        return ""


class Entries:
    """Entries by name, each with the tags of what it was made of."""

    def __init__(self, cache: QuickCache, **sources: Any) -> None:
        self.cache = cache
        self.names = list(sources)
        for name, source in sources.items():
            cache.set(name, 1, tags=tags_for(*(source if isinstance(source, tuple) else (source,))))

    @property
    def left(self) -> set[str]:
        """Names of those that aren't there any more."""
        return set(self.names) - set(self.cache.get_many(self.names))


class TestTags:
    def test_models(self) -> None:
        """A model's own, and those of the models that it inherits from."""
        assert tags_for(Product) == ("catalog.product",)
        assert tags_for(Gadget) == ("catalog.gadget", "catalog.product")
        assert tags_for(Bargain) == tags_for(Product)
        assert tags_for(Product, Vendor, Product) == ("catalog.product", "catalog.vendor")
        assert tags_for() == ()

    def test_rows(self) -> None:
        """A row's own, however its key is written; one for each table that it is in."""
        assert tags_for(Product(pk=7)) == ("catalog.product:7", "catalog.product:*")
        assert tags_for(Product(pk="7")) == tags_for(Bargain(pk=7)) == tags_for(Product(pk=7))
        gadget = Gadget.objects.create(name="lamp")
        key = gadget.pk
        assert tags_for(gadget) == (
            f"catalog.gadget:{key}",
            "catalog.gadget:*",
            f"catalog.product:{key}",
            "catalog.product:*",
        )

    def test_a_row_that_is_not_saved(self) -> None:
        with pytest.raises(ValueError, match="save it before"):
            tags_for(Product())

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda: Product.objects, {"product"}),
            (lambda: Product.objects.all(), {"product"}),
            (lambda: Product.objects.filter(price__gt=5).order_by("name")[:3], {"product"}),
            (lambda: Product.objects.none(), {"product"}),
            (lambda: Bargain.objects.all(), {"product"}),
            (lambda: Gadget.objects.all(), {"gadget", "product"}),
            (lambda: Product.objects.filter(vendor__name="x"), {"product", "vendor"}),
            (lambda: Product.objects.exclude(review__text="x"), {"product", "review"}),
            (lambda: Product.objects.order_by("vendor__name"), {"product", "vendor"}),
            (lambda: Product.objects.select_related("vendor"), {"product", "vendor"}),
            (lambda: Review.objects.select_related("product__vendor"), {"review", "product", "vendor"}),
            (lambda: Product.objects.values("vendor__name"), {"product", "vendor"}),
            (lambda: Product.objects.annotate(n=Count("review")), {"product", "review"}),
            (lambda: Product.objects.annotate(n=F("vendor__name")), {"product", "vendor"}),
            (lambda: Product.objects.filter(labels__name="x"), {"product", "product_labels", "label"}),
            (lambda: Product.objects.prefetch_related("labels"), {"product", "product_labels", "label"}),
            (lambda: Label.objects.prefetch_related("products"), {"product", "product_labels", "label"}),
            (lambda: Label.objects.prefetch_related("alike"), {"label", "label_alike"}),
            (lambda: Product.objects.prefetch_related("review_set"), {"product", "review"}),
            (lambda: Product.objects.prefetch_related("vendor"), {"product", "vendor"}),
            (
                lambda: Vendor.objects.prefetch_related("products__review_set"),
                {"vendor", "product", "review"},
            ),
            (
                lambda: Vendor.objects.prefetch_related(
                    Prefetch("products", Product.objects.filter(labels__name="x"), to_attr="some")
                ),
                {"vendor", "product", "product_labels", "label"},
            ),
            (lambda: Product.objects.filter(Exists(Review.objects.all())), {"product", "review"}),
            (
                lambda: Product.objects.filter(Q(price=1) | ~Q(pk__in=Review.objects.values("product"))),
                {"product", "review"},
            ),
            (
                lambda: Product.objects.annotate(
                    last=Subquery(Review.objects.filter(product=OuterRef("pk")).values("text")[:1])
                ),
                {"product", "review"},
            ),
            (
                lambda: Product.objects.order_by(
                    Subquery(Vendor.objects.filter(pk=OuterRef("vendor")).values("name")[:1])
                ),
                {"product", "vendor"},
            ),
            (lambda: Product.objects.filter(price=Vendor.objects.values("id")[:1]), {"product", "vendor"}),
            (
                lambda: Product.objects.values("name").union(Vendor.objects.values("name")),
                {"product", "vendor"},
            ),
        ],
    )
    def test_querysets(self, make: Callable[[], Any], expected: set[str]) -> None:
        """All models that data is taken from; without a query, and without a change of the queryset."""
        queryset = make()
        before = sql(queryset)
        with CaptureQueriesContext(connection) as queries:
            tags = tags_for(queryset)
        assert len(queries) == 0
        assert set(tags) == {f"catalog.{name}" for name in expected}
        assert sql(queryset) == before

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Product.objects.raw("SELECT * FROM catalog_product"),
            lambda: Product.objects.extra(where=["price > 5"]),
            lambda: Product.objects.extra(tables=["catalog_vendor"]),
            lambda: Product.objects.annotate(n=RawSQL("SELECT 1", ())),
            lambda: Product.objects.filter(price__in=RawSQL("SELECT 1", ())),
            lambda: Product.objects.prefetch_related("nothing"),
            lambda: "catalog.product",
            lambda: 5,
        ],
    )
    def test_what_nobody_knows(self, make: Callable[[], Any]) -> None:
        """Raw SQL and all that is no model: an error, instead of an entry that stays for ever."""
        with pytest.raises(TypeError, match=r"name the models|give a model"):
            tags_for(make())


class TestChanges:
    def test_a_row_that_is_saved(self, cache: QuickCache) -> None:
        """What was made of it or of all rows leaves; what was made of another row or model stays."""
        one, other = Product.objects.create(name="one"), Product.objects.create(name="other")
        entries = Entries(
            cache,
            one=one,
            other=other,
            model=Product,
            query=Product.objects.filter(name="x"),
            join=Vendor.objects.filter(products__name="x"),
            vendor=Vendor,
            gadget=Gadget,
        )
        one.save()
        assert entries.left == {"one", "model", "query", "join", "gadget"}

    def test_a_row_that_is_new_or_deleted(self, cache: QuickCache) -> None:
        entries = Entries(cache, model=Product, vendor=Vendor)
        product = Product.objects.create(name="new")
        assert entries.left == {"model"}
        entries = Entries(cache, model=Product, row=product, vendor=Vendor)
        product.delete()
        assert entries.left == {"model", "row"}

    def test_rows_that_are_deleted_together(self, cache: QuickCache) -> None:
        """With all that goes with them."""
        product = Product.objects.create(name="one")
        review = Review.objects.create(product=product, text="good")
        entries = Entries(cache, product=product, review=review, reviews=Review, vendor=Vendor)
        Product.objects.filter(name="one").delete()
        assert entries.left == {"product", "review", "reviews"}

    def test_a_row_whose_reference_is_set_to_null(self, cache: QuickCache) -> None:
        """The database layer changes it in silence, so all rows of the model count as changed."""
        vendor = Vendor.objects.create(name="v")
        product = Product.objects.create(name="one", vendor=vendor)
        entries = Entries(cache, product=product, model=Product, label=Label)
        vendor.delete()
        product.refresh_from_db()
        assert product.vendor is None
        assert entries.left == {"product", "model"}

    def test_rows_set_to_null_through_a_proxy(self, cache: QuickCache) -> None:
        """It makes no difference by which of its classes the related row is deleted."""
        vendor = Vendor.objects.create(name="v")
        product = Product.objects.create(name="one", vendor=vendor)
        entries = Entries(cache, product=product, model=Product, label=Label)
        Importer.objects.get().delete()
        product.refresh_from_db()
        assert product.vendor is None
        assert entries.left == {"product", "model"}

    @isolate_apps("catalog")
    def test_rows_set_to_null_through_a_proxy_that_comes_later(self, cache: QuickCache) -> None:
        class Late(Importer):
            class Meta:
                app_label = "catalog"
                proxy = True

        entries = Entries(cache, products=Product, label=Label)
        post_delete.send(Late, instance=Late(pk=1), using="default", origin=None)
        assert entries.left == {"products"}

    def test_rows_set_to_null_in_the_table_of_a_parent(self, cache: QuickCache) -> None:
        """Also if the parent isn't watched."""
        vendor = Vendor.objects.create(name="v")
        outlet = Outlet.objects.create(name="one", vendor=vendor)
        entries = Entries(cache, outlet=outlet, model=Outlet, label=Label)
        vendor.delete()
        outlet.refresh_from_db()
        assert outlet.vendor is None
        assert entries.left == {"outlet", "model"}

    def test_inheritance(self, cache: QuickCache) -> None:
        """A row that lies in two tables changes both, and is changed with each."""
        gadget = Gadget.objects.create(name="lamp")
        product = Product.objects.get()
        other = Gadget.objects.create(name="other")
        entries = Entries(cache, gadget=gadget, product=product, other=other, models=Product, gadgets=Gadget)
        gadget.save()
        assert entries.left == {"gadget", "product", "models", "gadgets"}
        entries = Entries(cache, gadget=gadget, product=product, other=other, models=Product, gadgets=Gadget)
        product.save()
        assert entries.left == {"gadget", "product", "models", "gadgets"}

    def test_a_proxy(self, cache: QuickCache) -> None:
        """It is the same row."""
        product = Product.objects.create(name="one")
        entries = Entries(cache, product=product, model=Product)
        Bargain.objects.get().save()
        assert entries.left == {"product", "model"}

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("action", ["add", "remove", "set", "clear", "create"])
    def test_relations(self, cache: QuickCache, action: str, reverse: bool) -> None:
        """Both ends of a many-to-many relation, whichever side it was changed from; nobody else."""
        product, label = Product.objects.create(name="one"), Label.objects.create(name="one")
        others = Product.objects.create(name="other"), Label.objects.create(name="other")
        manager: Any = label.products if reverse else product.labels
        one = product if reverse else label
        if action in ("remove", "clear", "set"):
            manager.add(one)
        entries = Entries(
            cache,
            product=product,
            label=label,
            relation=Product.objects.filter(labels__name="x"),
            other_product=others[0],
            other_label=others[1],
            vendor=Vendor,
        )
        match action:
            case "clear":
                manager.clear()
            case "set":
                manager.set([])
            case "create":
                manager.create(name="new")
            case _:
                getattr(manager, action)(one)
        gone = {"product", "label", "relation"}
        if action == "create":
            gone.remove("product" if reverse else "label")
        assert entries.left == gone

    def test_a_relation_to_itself(self, cache: QuickCache) -> None:
        one, two, three = (Label.objects.create(name=name) for name in "abc")
        one.alike.add(two)
        entries = Entries(cache, one=one, two=two, three=three)
        one.alike.clear()
        assert entries.left == {"one", "two"}

    def test_models_that_nobody_watches(self, cache: QuickCache) -> None:
        """They have no listeners, and deletes of their rows are as fast as before."""
        for signal in (post_save, post_delete):
            assert not signal.has_listeners(Visit)
            assert signal.has_listeners(Product)
            assert signal.has_listeners(Gadget)
            assert signal.has_listeners(Bargain)
        product = Product.objects.create(name="one")
        entries = Entries(cache, visits=Visit)
        Visit.objects.create(product=product)
        assert entries.left == set()


class TestManyAtOnce:
    def test_update(self, cache: QuickCache) -> None:
        """`InvalidatingManager`: all rows of the model count as changed, since nobody knows which."""
        product = Product.objects.create(name="one")
        entries = Entries(cache, product=product, model=Product, gadgets=Gadget, vendor=Vendor)
        assert Product.objects.filter(name="nobody").update(price=1) == 0
        assert entries.left == set()
        assert Product.objects.filter(name="one").update(price=1) == 1
        assert entries.left == {"product", "model", "gadgets"}

    def test_update_through_inheritance(self, cache: QuickCache) -> None:
        gadget = Gadget.objects.create(name="lamp")
        entries = Entries(cache, gadget=gadget, product=Product.objects.get(), vendor=Vendor)
        assert Gadget.objects.update(name="torch") == 1
        assert entries.left == {"gadget", "product"}

    def test_the_other_ways(self, cache: QuickCache) -> None:
        """Of creating, updating and deleting many; also for coroutines."""
        product = Product.objects.create(name="one")

        def make() -> Entries:
            return Entries(cache, product=product, model=Product, vendor=Vendor)

        entries = make()
        Product.objects.bulk_create([Product(name="two"), Product(name="three")])
        assert entries.left == {"product", "model"}
        entries = make()
        product.price = 7
        Product.objects.bulk_update([product], ["price"])
        assert entries.left == {"product", "model"}
        entries = make()
        async_to_sync(Product.objects.filter(name="one").aupdate)(price=8)
        assert entries.left == {"product", "model"}
        entries = make()
        Product.objects.filter(name="two").delete()
        assert entries.left == {"product", "model"}
        entries = make()
        Product.objects.bulk_create([])
        Product.objects.filter(name="two").delete()
        assert entries.left == set()

    def test_rows_that_begin_to_refer_to_another(self, cache: QuickCache) -> None:
        """Django adds them through the base manager: `bulk=False` or that one's being ours lets it be
        noticed.
        """
        vendor, product = Vendor.objects.create(name="v"), Product.objects.create(name="one")
        entries = Entries(cache, model=Product)
        vendor.products.add(product)
        assert entries.left == set()
        vendor.products.remove(product)
        assert entries.left == {"model"}
        entries = Entries(cache, model=Product, vendor=Vendor)
        vendor.products.add(product, bulk=False)
        assert entries.left == {"model"}
        note = Note.objects.create(text="n")
        entries = Entries(cache, model=Note, other=Product)
        product.notes.add(note)
        assert entries.left == {"model"}

    def test_changed(self, cache: QuickCache) -> None:
        """After raw SQL, and for managers that one can't change."""
        one, other = Review(pk=1), Review(pk=2)
        entries = Entries(cache, one=one, other=other, model=Review, vendor=Vendor)
        changed(one)
        assert entries.left == {"one", "model"}
        for source in (Review, Review.objects, Review.objects.filter(pk=1)):
            entries = Entries(cache, one=one, other=other, model=Review, vendor=Vendor)
            changed(source)
            assert entries.left == {"one", "other", "model"}
        for wrong in ("catalog.review", 5, None, object):
            with pytest.raises(TypeError, match="give a model"):
                changed(wrong)

    def test_no_templates(self) -> None:
        """Templates call no method that changes something."""
        queryset = Product.objects.all()
        assert queryset.update.alters_data  # type: ignore[attr-defined]
        assert queryset.delete.alters_data  # type: ignore[attr-defined]
        assert not hasattr(Product.objects, "delete")


class TestTransactions:
    def test_a_commit(self, cache: QuickCache) -> None:
        """Until then others see what was; who loads in between gets what was, and it leaves at the commit."""
        product = Product.objects.create(name="one")
        entries = Entries(cache, product=product)
        with transaction.atomic():
            product.save()
            assert entries.left == set()
        assert entries.left == {"product"}

    def test_a_rollback(self, cache: QuickCache) -> None:
        product = Product.objects.create(name="one")
        entries = Entries(cache, product=product, model=Product)
        with transaction.atomic():
            product.save()
            Product.objects.update(price=5)
            transaction.set_rollback(True)
        assert entries.left == set()

    def test_another_database(self, cache: QuickCache, tmp_path: Path) -> None:
        """The commit is that of the database that the row is in."""
        alias = f"catalog-{tmp_path.name}"
        connections.settings[alias] = {
            **connections.settings["default"],
            "NAME": str(tmp_path / "catalog.sqlite3"),
        }
        try:
            with connections[alias].schema_editor() as editor:
                editor.create_model(Vendor)
            vendor = Vendor(name="v")
            entries = Entries(cache, vendor=Vendor)
            with transaction.atomic():
                with transaction.atomic(using=alias):
                    vendor.save(using=alias)
                    assert entries.left == set()
                assert entries.left == {"vendor"}
        finally:
            connections[alias].close()
            del connections[alias]
            del connections.settings[alias]

    def test_a_database_for_reading(self, cache: QuickCache, tmp_path: Path) -> None:
        """Where a router has one, the commit is that of the one for writing."""
        alias = f"reading-{tmp_path.name}"
        connections.settings[alias] = {
            **connections.settings["default"],
            "NAME": str(tmp_path / "reading.sqlite3"),
        }

        class Router:
            def db_for_read(self, model: Any, **hints: Any) -> str:
                return alias

            def db_for_write(self, model: Any, **hints: Any) -> str:
                return "default"

        product = Product.objects.create(name="one")
        try:
            with override_settings(DATABASE_ROUTERS=[Router()]):
                for change in (
                    lambda: Product.objects.filter(name="one").update(price=5),
                    lambda: Product.objects.bulk_create([Product(name="two")]),
                    lambda: Product.objects.bulk_update([product], ["price"]),
                    lambda: Product.objects.filter(name="one").delete(),
                ):
                    entries = Entries(cache, model=Product)
                    with transaction.atomic():
                        change()
                        assert entries.left == set()
                    assert entries.left == {"model"}
        finally:
            connections[alias].close()
            del connections[alias]
            del connections.settings[alias]

    def test_changed(self, cache: QuickCache, tmp_path: Path) -> None:
        """The commit is that of the database that is written to, by a router, by `using`, or as named."""
        alias = f"changed-{tmp_path.name}"
        connections.settings[alias] = {
            **connections.settings["default"],
            "NAME": str(tmp_path / "changed.sqlite3"),
        }

        class Router:
            def db_for_write(self, model: Any, **hints: Any) -> str | None:
                return alias if model is Review else None

        review, vendor = Review(pk=1), Vendor(pk=1)
        review._state.db = "default"  # as if it was read from another one
        try:
            with override_settings(DATABASE_ROUTERS=[Router()]):
                for change in (
                    lambda: changed(Review),
                    lambda: changed(review),
                    lambda: changed(Review.objects),
                    lambda: changed(Review.objects.filter(pk=1)),
                    lambda: changed(Vendor.objects.using(alias)),
                    lambda: changed(Vendor, using=alias),
                    lambda: changed(vendor, using=alias),
                ):
                    entries = Entries(cache, models=(Review, Vendor))
                    with transaction.atomic(using=alias):
                        change()
                        assert entries.left == set()
                    assert entries.left == {"models"}
        finally:
            connections[alias].close()
            del connections[alias]
            del connections.settings[alias]

    def test_many_rows(self, cache: QuickCache, monkeypatch: pytest.MonkeyPatch) -> None:
        """One transaction asks the cache once, however many rows it changes one by one."""
        calls = []
        invalidate = QuickCache.invalidate_tags

        def noting(self: QuickCache, *tags: str) -> None:
            calls.append(tags)
            invalidate(self, *tags)

        monkeypatch.setattr(QuickCache, "invalidate_tags", noting)
        vendors = [Vendor.objects.create(name="v") for _ in range(5)]
        assert len(calls) == 5
        calls.clear()
        entries = Entries(cache, **{f"v{vendor.pk}": vendor for vendor in vendors})
        with transaction.atomic():
            for vendor in vendors:
                vendor.save()
        assert entries.left == set(entries.names)
        assert calls == [("catalog.vendor", *(f"catalog.vendor:{vendor.pk}" for vendor in vendors))]

    def test_what_is_done_in_between(self, cache: QuickCache) -> None:
        """The order stays: what was stored before a row was changed again leaves."""
        vendor = Vendor.objects.create(name="v")
        with transaction.atomic():
            vendor.save()
            cache.set("between", 1, tags=tags_for(vendor), on_commit=True)
            vendor.save()
            cache.set("after", 1, tags=tags_for(vendor), on_commit=True)
        assert cache.get_many(["between", "after"]) == {"after": 1}

    def test_a_savepoint(self, cache: QuickCache) -> None:
        """What was changed within one that is rolled back takes nothing of the rest along."""
        first, second, third = (Vendor.objects.create(name="v") for _ in range(3))
        entries = Entries(cache, first=first, third=third, label=Label)
        with transaction.atomic():
            with transaction.atomic():
                first.save()
                transaction.set_rollback(True)
            second.save()
            with transaction.atomic():
                Label.objects.create(name="l")
                transaction.set_rollback(True)
            third.save()
        assert entries.left >= {"third"}
        entries = Entries(cache, label=Label, first=first)
        with transaction.atomic(), transaction.atomic():
            first.save()
            transaction.set_rollback(True)
        assert entries.left == set()

    def test_captured(self, cache: QuickCache) -> None:
        """A `TestCase` carries out what belongs to its block, whatever came before in its transaction."""
        vendor = Vendor.objects.create(name="v")
        entries = Entries(cache, vendor=vendor)
        with transaction.atomic():
            vendor.save()
            with TestCase.captureOnCommitCallbacks(execute=True) as calls:
                vendor.save()
            assert len(calls) == 1
            assert entries.left == {"vendor"}
            entries = Entries(cache, vendor=vendor)
            vendor.save()
        assert entries.left == {"vendor"}

    def test_no_transactions(self, cache: QuickCache) -> None:
        """Where commits are made by hand nobody hears of them; Django says so instead of missing one."""
        product = Product.objects.create(name="one")
        transaction.set_autocommit(False)
        try:
            with pytest.raises(transaction.TransactionManagementError, match="manual transaction"):
                product.save()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    def test_a_load_that_began_before(self, cache: QuickCache) -> None:
        """What it read may be from before the commit, so it isn't kept."""
        product = Product.objects.create(name="old")

        def load() -> str:
            name = Product.objects.get().name
            product.name = "new"
            product.save()
            return name

        assert cache.get_or_set("k", load, tags=tags_for(product)) == "old"
        assert cache.get("k") is None

    def test_a_cache_that_fails(self, cache: QuickCache, caplog: pytest.LogCaptureFixture) -> None:
        """The row is saved all the same, and the error is logged."""
        wrong = {"BACKEND": "quickcache_django.QuickCache", "OPTIONS": {"MAX_SIZE": "many"}}
        with override_settings(CACHES={"default": wrong}), caplog.at_level(logging.ERROR):
            Vendor.objects.create(name="saved")
        assert Vendor.objects.get().name == "saved"
        assert "QuickCache.invalidate_tags in on_commit()" in caplog.text


class TestPlaces:
    def test_all_caches(self, cache: QuickCache) -> None:
        """All that are ours, whatever their prefix and version; others are left alone."""
        ours = {"BACKEND": "quickcache_django.QuickCache"}
        entries = {
            "default": {**ours, "LOCATION": "places"},
            "prefix": {**ours, "LOCATION": "places", "KEY_PREFIX": "p", "VERSION": 2},
            "elsewhere": {**ours, "LOCATION": "places elsewhere"},
            "theirs": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        }
        with override_settings(CACHES=entries):
            made = [Entries(caches[alias], vendor=Vendor) for alias in ("default", "prefix", "elsewhere")]  # type: ignore[arg-type]
            Vendor.objects.create(name="v")
            assert [one.left for one in made] == [{"vendor"}] * 3

    @isolate_apps("catalog")
    def test_some_caches(self, cache: QuickCache) -> None:
        """`aliases` names them, `namespaces` what is theirs."""

        @invalidate_on_change(aliases=["a"], namespaces=["pages"])
        class Thing(models.Model):
            class Meta:
                app_label = "catalog"

        ours = {"BACKEND": "quickcache_django.QuickCache"}
        entries = {
            "default": ours,
            "a": {**ours, "LOCATION": "some a"},
            "b": {**ours, "LOCATION": "some b"},
        }
        with override_settings(CACHES=entries):
            a, b = caches["a"], caches["b"]
            made = [Entries(one, thing=Thing) for one in (a, a.namespace("pages"), a.namespace("x"), b)]  # type: ignore[attr-defined, arg-type]
            post_save.send(Thing, instance=Thing(pk=1), using="default", created=True)
            assert [len(one.left) for one in made] == [1, 1, 0, 0]
        with (
            pytest.raises(ImproperlyConfigured, match="is a DummyCache"),
            override_settings(
                CACHES={"default": ours, "a": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
            ),
        ):
            changed(Thing)

    @isolate_apps("catalog")
    def test_abstract_models(self, cache: QuickCache) -> None:
        """Those that inherit from one are covered, those that come later, too."""

        class Before(Stamped):
            class Meta:
                app_label = "catalog"

        class Base(models.Model):
            class Meta:
                abstract = True

        invalidate_on_change(Base)

        class After(Base):
            class Meta:
                app_label = "catalog"

        assert post_save.has_listeners(After)
        assert not post_save.has_listeners(Before)
        entries = Entries(cache, after=After, before=Before)
        post_save.send(After, instance=After(pk=1), using="default", created=True)
        assert entries.left == {"after"}

    def test_registered_twice(self, cache: QuickCache) -> None:
        """Makes no difference."""
        assert invalidate_on_change(Vendor) is Vendor
        with transaction.atomic():
            Vendor.objects.create(name="v")
            assert len(connection.run_on_commit) == len(list(caches))


def test_coroutines(cache: QuickCache) -> None:
    """Rows that coroutines save do the same."""
    entries = Entries(cache, vendor=Vendor)

    async def main() -> None:
        await Vendor(name="v").asave()

    async_to_sync(main)()
    assert entries.left == {"vendor"}
    assert asyncio.run(cache.aget("nothing")) is None
