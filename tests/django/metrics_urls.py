"""The URLs of a project that shows its caches' figures."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("ops/", include("quickcache_django.metrics"))]
