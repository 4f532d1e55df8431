"""A small Django site in one file, the same for every cache, for gunicorn: articles with comments.

Its environment says which cache it has and where its database is.
"""

from __future__ import annotations

import json
import os
from typing import Any

import django
from django.conf import settings

from benchmarks.end_to_end import ARTICLES, CACHE, DATABASE

COMMENTS = 10
"""Of each article."""
PIECES = 30
"""That a front page is put together of."""
OURS = "quickcache_django.QuickCache"

_ARTICLE = """<!doctype html><title>{{ article.title }}</title><h1>{{ article.title }}</h1>
{{ article.body|linebreaks }}<ul>{% for comment in comments %}
<li><b>{{ comment.author|title }}</b>, {{ comment.written|date:"j F Y" }}: {{ comment.text }}</li>{% endfor %}
</ul>"""
_TEASER = """<section><h2>{{ article.title }}</h2>{{ article.body|truncatewords:12 }}
({{ comments|length }} comments)</section>"""

settings.configure(
    SECRET_KEY="a secret for the time of a benchmark only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["benchmarks"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    CACHES={"default": json.loads(os.environ[CACHE])},
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ[DATABASE],
            "CONN_MAX_AGE": None,
        }
    },
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.cached.Loader",
                        [
                            (
                                "django.template.loaders.locmem.Loader",
                                {"article.html": _ARTICLE, "teaser.html": _TEASER},
                            )
                        ],
                    )
                ]
            },
        }
    ],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()

from django.core.cache import cache  # noqa: E402 - all of these need the settings
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.template.loader import render_to_string  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.cache import cache_page  # noqa: E402

from quickcache_django.decorators import cached_view  # noqa: E402


class Article(models.Model):
    title = models.CharField(max_length=100)
    body = models.TextField()

    class Meta:
        app_label = "benchmarks"


class Comment(models.Model):
    article = models.ForeignKey(Article, models.CASCADE)
    author = models.CharField(max_length=100)
    text = models.TextField()
    written = models.DateField()

    class Meta:
        app_label = "benchmarks"


def make_database() -> None:
    import datetime as dt

    with connection.schema_editor() as editor:
        editor.create_model(Article)
        editor.create_model(Comment)
    body = "\n\n".join("Some words that stand for those of an article. " * 8 for _ in range(4))
    articles = Article.objects.bulk_create(
        Article(title=f"Article {number}", body=body) for number in range(ARTICLES)
    )
    Comment.objects.bulk_create(
        Comment(
            article=article,
            author=f"reader {number}",
            text="What a reader has to say about this article. " * 2,
            written=dt.date(2024, 1, 1 + number),
        )
        for article in articles
        for number in range(COMMENTS)
    )


def render(template: str, number: int) -> str:
    article = Article.objects.get(title=f"Article {number}")
    comments = list(article.comment_set.order_by("written"))
    return render_to_string(template, {"article": article, "comments": comments})


def article_by_key(request: HttpRequest, number: int) -> HttpResponse:
    """One value, by the low-level interface."""
    key = f"article:{number}"
    text = cache.get(key)
    if text is None:
        text = render("article.html", number)
        cache.set(key, text)
    return HttpResponse(text)


def front_page(request: HttpRequest, number: int) -> HttpResponse:
    """Many values, each asked for by itself, as the `cache` tags of a template do."""
    pieces = []
    for each in range(number, number + PIECES):
        key = f"teaser:{each % ARTICLES}"
        text = cache.get(key)
        if text is None:
            text = render("teaser.html", each % ARTICLES)
            cache.set(key, text)
        pieces.append(text)
    return HttpResponse("".join(pieces))


def whole_page(request: HttpRequest, number: int) -> HttpResponse:
    """The whole response, by the decorator that belongs to the cache."""
    return HttpResponse(render("article.html", number))


decorate: Any = cached_view() if settings.CACHES["default"]["BACKEND"] == OURS else cache_page(86_400)

urlpatterns = [
    path("article/<int:number>/", article_by_key),
    path("front/<int:number>/", front_page),
    path("page/<int:number>/", decorate(whole_page)),
]
application = WSGIHandler()
