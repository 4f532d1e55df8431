"""The one application of the shop."""

from django.apps import AppConfig
from django.db.backends.signals import connection_created


class CatalogueConfig(AppConfig):
    name = "catalogue"

    def ready(self) -> None:
        from catalogue.queries import watch

        connection_created.connect(watch)
