"""The addresses: all of them are the catalogue's."""

from django.urls import include, path

urlpatterns = [path("", include("catalogue.urls"))]
