"""What the shop sells, what it has sold, and the revision that tells the caches that something changed."""

from __future__ import annotations

from datetime import timedelta

from django.db import models, transaction
from django.db.models import Count, F, Q, QuerySet, Sum, Window
from django.db.models.functions import Coalesce, Rank
from django.utils import timezone

from quickcache_django.model_tags import InvalidatingQuerySet, invalidate_on_change


class SoldOut(Exception):
    """Fewer pieces are left than were asked for."""


@invalidate_on_change
class Category(models.Model):
    name = models.CharField(max_length=60, unique=True)

    def __str__(self) -> str:
        return self.name


class ProductQuerySet(InvalidatingQuerySet["Product"]):
    """With an `update` that is noticed, as `save` is."""

    def best_of_each_category(self, places: int = 5) -> ProductQuerySet:
        """Joins every product with all of its sales, adds them up and ranks them: slow, and meant to be."""
        month_ago = timezone.localdate() - timedelta(days=30)
        return (
            self.select_related("category")
            .annotate(
                sold=Coalesce(Sum("sales__quantity"), 0),
                sold_lately=Coalesce(Sum("sales__quantity", filter=Q(sales__day__gte=month_ago)), 0),
                days_sold=Count("sales__day", distinct=True),
                revenue_cents=F("price_cents") * F("sold"),
            )
            .annotate(place=Window(Rank(), partition_by=F("category"), order_by=F("revenue_cents").desc()))
            .filter(place__lte=places)
            .order_by("category__name", "place")
        )

    def best_of_the_last_days(self, days: int) -> ProductQuerySet:
        first_day = timezone.localdate() - timedelta(days=days)
        sold = Coalesce(Sum("sales__quantity", filter=Q(sales__day__gt=first_day)), 0)
        return (
            self.select_related("category").filter(stock__gt=0).annotate(sold=sold).order_by("-sold", "name")
        )

    def of_category(self, category: Category) -> ProductQuerySet:
        return (
            self.filter(category=category).annotate(sold=Coalesce(Sum("sales__quantity"), 0)).order_by("name")
        )

    def turnover(self) -> int:
        """Cents, of all sales."""
        cents = self.aggregate(cents=Sum(F("sales__quantity") * F("price_cents")))["cents"]
        return int(cents or 0)


@invalidate_on_change
class Product(models.Model):
    category = models.ForeignKey(Category, on_delete=models.CASCADE, related_name="products")
    name = models.CharField(max_length=80, unique=True)
    price_cents = models.PositiveIntegerField()
    stock = models.PositiveIntegerField()

    objects = ProductQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def price(self) -> str:
        return f"{self.price_cents / 100:.2f} €"

    def buy(self, visitor: str, quantity: int = 1) -> Sale:
        """Sells and moves the revision on, both or neither; raises `SoldOut` when the stock is too small."""
        with transaction.atomic():
            left = Product.objects.filter(pk=self.pk, stock__gte=quantity)
            if not left.update(stock=F("stock") - quantity):
                raise SoldOut(f"{self.name}: fewer than {quantity} left")
            sale = Sale.objects.create(product=self, quantity=quantity, visitor=visitor)
            Revision.advance()
        return sale


class Sale(models.Model):
    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="sales")
    quantity = models.PositiveIntegerField()
    day = models.DateField(default=timezone.localdate)
    visitor = models.CharField(max_length=40, blank=True, db_index=True)

    @classmethod
    def of_visitor(cls, visitor: str) -> QuerySet[Sale]:
        return cls.objects.filter(visitor=visitor).select_related("product").order_by("-pk")


class Revision(models.Model):
    """One row with one number, moved on by each change of the shop's data.

    The number is part of every cache key, so that nobody asks for older copies any more once the change is
    committed. To delete pages of `cache_page` and `{% cache %}` instead would leave a gap: a worker that read
    the old rows just before could store its page just after.
    """

    number = models.PositiveBigIntegerField(default=1)

    @classmethod
    def current(cls) -> int:
        return cls.objects.values_list("number", flat=True).get(pk=1)

    @classmethod
    def advance(cls) -> None:
        cls.objects.filter(pk=1).update(number=F("number") + 1)
