"""The shop's pages: each part of them comes from the cache in one of the ways that Django offers."""

from __future__ import annotations

import os
from datetime import datetime
from uuid import uuid4

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.utils import timezone
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.http import require_POST

from catalogue.figures import figures_of_this_worker
from catalogue.measuring import Measurement, measured, server_timing
from catalogue.models import Product, Revision, Sale, SoldOut

KEPT_FOR = 300  # seconds

NOTICE = "notice"

MESSAGES = {
    "done": "Sold. Every number on this page is as of now, on every worker.",
    "sold-out": "Sorry, that has just been sold out.",
}


def catalogue(request: HttpRequest) -> HttpResponse:
    """Way 1, a whole page: `cache_page`, with the revision in its key prefix."""
    revision = Revision.current()
    with measured("catalogue") as measurement:
        response = cache_page(KEPT_FOR, key_prefix=f"revision-{revision}")(slow_catalogue)(request)
    # cache_page lets the browser keep the page too. The browser doesn't know the revision, so it has to ask.
    response.headers["Cache-Control"] = "no-cache"
    del response.headers["Expires"]
    return reported(response, measurement)


def slow_catalogue(request: HttpRequest) -> HttpResponse:
    products = list(Product.objects.best_of_each_category())
    context = {"products": products, "made_at": timezone.now(), "made_by": os.getpid(), "kept_for": KEPT_FOR}
    return render(request, "catalogue/catalogue.html", context)


@never_cache
def home(request: HttpRequest) -> HttpResponse:
    with measured("session") as session:
        visitor = visitor_of(request)
    if settings.SESSION_COOKIE_NAME not in request.COOKIES:
        session.outcome = "new"

    revision = Revision.current()

    # Way 2, any object: the low-level interface, with the revision as the key's version.
    with measured("product") as product:
        product_of_the_day = cache.get("product-of-the-day", version=revision)
        if product_of_the_day is None:
            product_of_the_day = Product.objects.best_of_the_last_days(1).first()
            cache.set("product-of-the-day", product_of_the_day, KEPT_FOR, version=revision)

    # Way 3, a part of a template: {% cache %}, with the revision among the things that it varies on. The
    # query set is lazy, so it is run only when the template isn't answered from the cache.
    with measured("shelf") as shelf:
        bestsellers = Product.objects.best_of_the_last_days(30)[:6]
        context = {"bestsellers": bestsellers, "revision": revision, "kept_for": KEPT_FOR}
        shelf_html = render_to_string("catalogue/shelf.html", context, request)

    context = {
        "notice": cache.get(NOTICE),
        "session": session,
        "visitor": visitor,
        "visitor_since": datetime.fromisoformat(request.session["since"]),
        "purchases": Sale.of_visitor(visitor)[:8],
        "product": product,
        "product_of_the_day": product_of_the_day,
        "shelf": shelf,
        "shelf_html": shelf_html,
        "worker": os.getpid(),
        "figures": figures_of_this_worker(),
        "message": MESSAGES.get(request.GET.get("purchase", "")),
    }
    return reported(render(request, "catalogue/home.html", context), session, product, shelf)


@require_POST
def buy(request: HttpRequest, product_id: int) -> HttpResponse:
    product = get_object_or_404(Product, pk=product_id)
    try:
        product.buy(visitor_of(request))
        outcome = "done"
    except SoldOut:
        outcome = "sold-out"
    return reported(redirect(f"/?purchase={outcome}"))


@never_cache
def notice(request: HttpRequest) -> HttpResponse:
    """Way 5, a value that is nowhere but in the cache: one worker writes it, all of them show it."""
    if request.method == "POST":
        cache.set(NOTICE, {"text": request.POST["text"], "written_by": os.getpid()}, timeout=None)
        return reported(redirect("/"))
    return reported(JsonResponse(cache.get(NOTICE, {})))


@never_cache
def worker(request: HttpRequest) -> HttpResponse:
    """The figures of the worker that happens to answer, for programs."""
    return reported(JsonResponse(figures_of_this_worker()))


def visitor_of(request: HttpRequest) -> str:
    """Way 4, sessions: see SESSION_ENGINE in the settings."""
    visitor = request.session.get("visitor")
    if visitor is None:
        visitor = request.session["visitor"] = uuid4().hex
        request.session["since"] = timezone.now().isoformat()
    return visitor


def reported(response: HttpResponse, *measurements: Measurement) -> HttpResponse:
    response.headers["Server-Timing"] = server_timing(measurements)
    response.headers["X-Worker"] = str(os.getpid())
    return response
