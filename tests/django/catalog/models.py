"""Models whose rows entries are made of, related in every way that there is."""

from __future__ import annotations

from django.db import models

from quickcache_django.model_tags import InvalidatingManager, invalidate_on_change


class Stamped(models.Model):
    class Meta:
        abstract = True


@invalidate_on_change
class Vendor(models.Model):
    name = models.CharField(max_length=20)


class Importer(Vendor):
    class Meta:
        proxy = True


class Depot(models.Model):
    """Of which no cache has to know."""

    vendor = models.ForeignKey("Vendor", models.SET_NULL, null=True)


@invalidate_on_change
class Outlet(Depot):
    name = models.CharField(max_length=20)


@invalidate_on_change
class Label(models.Model):
    name = models.CharField(max_length=20)
    alike = models.ManyToManyField("self")


@invalidate_on_change
class Product(Stamped):
    name = models.CharField(max_length=20)
    price = models.IntegerField(default=0)
    vendor = models.ForeignKey("Vendor", models.SET_NULL, null=True, related_name="products")
    labels = models.ManyToManyField(Label, related_name="products")

    objects = InvalidatingManager()


class Gadget(Product):
    volts = models.IntegerField(default=12)

    objects = InvalidatingManager()


class Bargain(Product):
    class Meta:
        proxy = True


@invalidate_on_change
class Review(models.Model):
    product = models.ForeignKey(Product, models.CASCADE)
    text = models.CharField(max_length=20)


@invalidate_on_change
class Note(models.Model):
    """Whose rows Django changes through the same manager as everybody."""

    product = models.ForeignKey(Product, models.SET_NULL, null=True, related_name="notes")
    text = models.CharField(max_length=20)

    objects = InvalidatingManager()

    class Meta:
        base_manager_name = "objects"


class Visit(models.Model):
    """Of which no cache has to know."""

    product = models.ForeignKey(Product, models.CASCADE)
