"""The shop's addresses."""

from django.urls import path

from catalogue import views

urlpatterns = [
    path("", views.home, name="home"),
    path("catalogue/", views.catalogue, name="catalogue"),
    path("category/<int:category_id>/", views.category, name="category"),
    path("notice/", views.notice, name="notice"),
    path("buy/<int:product_id>/", views.buy, name="buy"),
    path("worker/", views.worker, name="worker"),
    path("turnover/", views.turnover, name="turnover"),
    path("database/", views.database, name="database"),
]
