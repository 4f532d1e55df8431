"""The shop's pages: each part of them comes from the cache in one of the ways that Django offers."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.cache import cache
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.utils import timezone
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.http import require_POST

from catalogue.database import is_on, switch
from catalogue.figures import figures_of_all_workers, figures_of_this_worker
from catalogue.measuring import Measurement, measured, server_timing
from catalogue.models import Category, Product, Revision, Sale, SoldOut
from catalogue.queries import slow_queries
from quickcache_django.decorators import cached_view
from quickcache_django.model_tags import tags_for

KEPT_FOR = settings.KEPT_FOR  # seconds
TURNOVER_KEPT_FOR = 5  # seconds
A_DAY = 86_400  # seconds, that an old copy is good enough for while the database is off

NOTICE = "notice"

MESSAGES = {
    "done": "Sold. Every number on this page is as of now, on every worker.",
    "sold-out": "Sorry, that has just been sold out.",
    "off": "Nothing can be sold while the database is off.",
}


def current_revision() -> int:
    """Refreshed by each purchase, so no page has to ask the database for it."""
    return int(cache.get_or_set("revision", Revision.current, KEPT_FOR, stale_ttl=A_DAY))


def catalogue(request: HttpRequest) -> HttpResponse:
    """Way 1, a whole page: `cache_page`, with the revision in its key prefix."""
    revision = current_revision()
    with measured("catalogue") as measurement:
        response = cache_page(KEPT_FOR, key_prefix=f"revision-{revision}")(slow_catalogue)(request)
    # cache_page lets the browser keep the page too. The browser doesn't know the revision, so it has to ask.
    response.headers["Cache-Control"] = "no-cache"
    del response.headers["Expires"]
    return reported(response, measurement)


def slow_catalogue(request: HttpRequest) -> HttpResponse:
    # The rows are kept for longer than the page, for the day when the database is off; and those who ask for
    # a new page at the same time wait for one query, whichever worker makes it.
    products = cache.get_or_set(
        "best-of-each-category",
        lambda: list(Product.objects.best_of_each_category()),
        KEPT_FOR,
        version=current_revision(),
        stale_ttl=A_DAY,
    )
    context = {"products": products, "made_at": timezone.now(), "made_by": os.getpid(), "kept_for": KEPT_FOR}
    return render(request, "catalogue/catalogue.html", context)


@never_cache
def home(request: HttpRequest) -> HttpResponse:
    with measured("session") as session:
        visitor = visitor_of(request)
    if settings.SESSION_COOKIE_NAME not in request.COOKIES:
        session.outcome = "new"

    revision = current_revision()

    # Way 2, any object: the low-level interface, with the revision as the key's version.
    with measured("product") as product:
        product_of_the_day = cache.get_or_set(
            "product-of-the-day",
            lambda: Product.objects.best_of_the_last_days(1).first(),
            KEPT_FOR,
            version=revision,
            stale_ttl=A_DAY,
        )

    def bestsellers() -> list[Product]:
        return cache.get_or_set(  # type: ignore[no-any-return]
            "bestsellers",
            lambda: list(Product.objects.best_of_the_last_days(30)[:6]),
            KEPT_FOR,
            version=revision,
            stale_ttl=A_DAY,
        )

    # Way 3, a part of a template: {% cache %}, with the revision among the things that it varies on. The
    # function is called by the template, only when that isn't answered from the cache.
    with measured("shelf") as shelf:
        context = {"bestsellers": bestsellers, "revision": revision, "kept_for": KEPT_FOR}
        shelf_html = render_to_string("catalogue/shelf.html", context, request)

    context = {
        "notice": cache.get(NOTICE),
        "session": session,
        "visitor": visitor,
        "visitor_since": datetime.fromisoformat(request.session["since"]) if visitor else None,
        "purchases": purchases_of(visitor),
        "product": product,
        "product_of_the_day": product_of_the_day,
        "shelf": shelf,
        "shelf_html": shelf_html,
        "worker": os.getpid(),
        "figures": figures_of_this_worker(),
        "all_workers": figures_of_all_workers(),
        "turnover": turnover_of_all(),
        "database_is_on": is_on(),
        "message": MESSAGES.get(request.GET.get("purchase", "")),
    }
    return reported(render(request, "catalogue/home.html", context), session, product, shelf)


def category(request: HttpRequest, category_id: int) -> HttpResponse:
    with measured("category") as measurement:
        response = category_page(request, category_id)
    return reported(response, measurement)


@cached_view(KEPT_FOR, stale_ttl=A_DAY, tags=tags_for(Category, Product), x_cache=True)
def category_page(request: HttpRequest, category_id: int) -> HttpResponse:
    """Way 7, a whole page that follows the rows it is made of: no revision, and nothing to do in `buy`. Once
    a purchase is committed, the page is gone, for all workers.
    """
    found = get_object_or_404(Category, pk=category_id)
    context = {
        "category": found,
        "products": Product.objects.of_category(found),
        "made_at": timezone.now(),
        "made_by": os.getpid(),
    }
    return render(request, "catalogue/category.html", context)


@require_POST
def buy(request: HttpRequest, product_id: int) -> HttpResponse:
    try:
        product = get_object_or_404(Product, pk=product_id)
        visitor = visitor_of(request)
        product.buy(visitor)
        cache.refresh("revision", Revision.current, KEPT_FOR, stale_ttl=A_DAY)
        cache.delete(f"purchases-{visitor}")
        outcome = "done"
    except SoldOut:
        outcome = "sold-out"
    except OperationalError:
        outcome = "off"
    return reported(redirect(f"/?purchase={outcome}"))


@never_cache
def notice(request: HttpRequest) -> HttpResponse:
    """Way 5, a value that is nowhere but in the cache: one worker writes it, all of them show it."""
    if request.method == "POST":
        cache.set(NOTICE, {"text": request.POST["text"], "written_by": os.getpid()}, timeout=None)
        return reported(redirect("/"))
    return reported(JsonResponse(cache.get(NOTICE, {})))


@never_cache
def turnover(request: HttpRequest) -> HttpResponse:
    """Way 6, a value with a safety net: `get_or_set`. POST drops it, so that the next one has to be made."""
    if request.method == "POST":
        cache.delete("turnover")
    return reported(JsonResponse({**turnover_of_all(), **figures_of_all_workers()}))


def turnover_of_all() -> dict[str, Any]:
    """Fresh for some seconds. After that the old one is shown at once while one worker makes a new one, and
    it goes on being shown while the database is off.
    """
    made: dict[str, Any] = cache.get_or_set("turnover", work_out_turnover, TURNOVER_KEPT_FOR, stale_ttl=A_DAY)
    return {**made, "age": round((timezone.now() - datetime.fromisoformat(made["made_at"])).total_seconds())}


def work_out_turnover() -> dict[str, Any]:
    cents = Product.objects.turnover()
    return {"euros": cents // 100, "made_at": timezone.now().isoformat(), "made_by": os.getpid()}


@require_POST
def database(request: HttpRequest) -> HttpResponse:
    """Switches the database off, by moving its file away, and on again; for all workers."""
    switch(on=request.POST["state"] == "on")
    return reported(redirect("/"))


@never_cache
def worker(request: HttpRequest) -> HttpResponse:
    """The figures of the worker that happens to answer, for programs."""
    return reported(JsonResponse({**figures_of_this_worker(), "slow_queries": slow_queries()}))


def purchases_of(visitor: str) -> list[Sale]:
    if not visitor:
        return []
    return cache.get_or_set(  # type: ignore[no-any-return]
        f"purchases-{visitor}", lambda: list(Sale.of_visitor(visitor)[:8]), KEPT_FOR, stale_ttl=A_DAY
    )


def visitor_of(request: HttpRequest) -> str:
    """Way 4, sessions: see SESSION_ENGINE in the settings. While the database is off nobody new has one."""
    visitor: str | None = request.session.get("visitor")
    if visitor is None:
        if not is_on():
            return ""
        visitor = request.session["visitor"] = uuid4().hex
        request.session["since"] = timezone.now().isoformat()
    return visitor


def reported(response: HttpResponse, *measurements: Measurement) -> HttpResponse:
    response.headers["Server-Timing"] = server_timing(measurements)
    response.headers["X-Worker"] = str(os.getpid())
    return response
