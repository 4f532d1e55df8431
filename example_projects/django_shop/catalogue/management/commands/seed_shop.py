"""`manage.py seed_shop`: fills an empty shop, always with the same goods; leaves a filled one alone."""

from datetime import timedelta
from random import Random
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils import timezone

from catalogue.models import Category, Product, Revision, Sale

COLOURS = ["Amber", "Blue", "Coral", "Dark", "Emerald", "Faded", "Golden", "Hazel", "Ivory", "Jade"]
GOODS = {
    "Kitchen": ["kettle", "teapot", "pan", "ladle"],
    "Garden": ["spade", "watering can", "bench", "lantern"],
    "Office": ["desk", "lamp", "notebook", "inkwell"],
    "Travel": ["suitcase", "backpack", "tent", "compass"],
    "Music": ["ukulele", "drum", "flute", "metronome"],
    "Winter": ["scarf", "sledge", "mitten", "parka"],
}
SALES = 40_000
DAYS = 365


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            if Product.objects.exists():
                return
            self.fill(Random(2024))

    def fill(self, random: Random) -> None:
        Revision.objects.create(pk=1)
        for category_name, goods in GOODS.items():
            category = Category.objects.create(name=category_name)
            Product.objects.bulk_create(
                Product(
                    category=category,
                    name=f"{colour} {thing}",
                    price_cents=random.randrange(300, 20_000, 5),
                    stock=random.randrange(20, 200),
                )
                for colour in COLOURS
                for thing in goods
            )
        products = list(Product.objects.order_by("pk"))
        popularity = [random.paretovariate(1.2) for _ in products]
        today = timezone.localdate()
        Sale.objects.bulk_create(
            (
                Sale(
                    product=product,
                    quantity=random.randint(1, 4),
                    day=today - timedelta(days=random.randrange(DAYS)),
                )
                for product in random.choices(products, popularity, k=SALES)
            ),
            batch_size=2_000,
        )
        self.stdout.write(f"Filled the shop: {len(products)} products, {SALES:,} sales.")
