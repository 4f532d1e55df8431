"""The pages."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from flask import Blueprint, Request, Response, abort, jsonify, redirect, render_template, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from notes import cached, text
from notes.figures import figures_of_this_worker
from notes.measuring import measured, measurements, server_timing
from quickcache_flask import cached_view

pages = Blueprint("pages", __name__)


@pages.get("/")
def index() -> str:
    with measured("overview") as measurement:
        overview = cached.overview()
    return render_template("index.html", overview=overview, measurement=measurement)


@pages.get("/notes/<int:note_id>")
def show(note_id: int) -> str:
    note = cached.storage().get(note_id) or abort(404)
    with measured("rendered"):
        html = cached.rendered(note_id)
    with measured("statistics"):
        statistics = cached.statistics(note_id)
    with measured("related"):
        related = cached.related(note_id)
    parts = {measurement.name: measurement for measurement in measurements()}
    # Markup: to_html has escaped whatever HTML the author of the note has written.
    return render_template(
        "note.html", note=note, html=Markup(html), statistics=statistics, related=related, parts=parts
    )


def tag_of_the_note(request: Request) -> list[str]:
    return [cached.tag_of((request.view_args or {})["note_id"])]


@pages.get("/notes/<int:note_id>/print")
@cached_view(cached.cache, 300, tags=tag_of_the_note, x_cache=True)
def to_print(note_id: int) -> str:
    """A whole page, kept until its note changes."""
    note = cached.storage().get(note_id) or abort(404)
    made_at = datetime.now(UTC)
    return render_template("print.html", note=note, html=Markup(text.to_html(note.text)), made_at=made_at)


@pages.get("/notes.json")
@cached_view(cached.cache, 300, tags=[cached.ALL_NOTES], stale_ttl=3600, x_cache=True)
def export() -> Response:
    """For programs that come every minute: until a note changes they get a 304, and no view is called."""
    return jsonify(
        [{"id": note.id, "title": note.title, "text": note.text} for note in cached.storage().all()]
    )


@pages.post("/notes")
def add() -> AnyResponse:
    note_id = cached.storage().add(*_form())
    cached.forget(note_id)
    return redirect(url_for("pages.show", note_id=note_id))


@pages.post("/notes/<int:note_id>")
def change(note_id: int) -> AnyResponse:
    cached.storage().change(note_id, *_form())
    cached.forget(note_id)
    return redirect(url_for("pages.show", note_id=note_id))


@pages.post("/notes/<int:note_id>/delete")
def delete(note_id: int) -> AnyResponse:
    cached.storage().delete(note_id)
    cached.forget(note_id)
    return redirect(url_for("pages.index"))


@pages.get("/worker")
def worker() -> Response:
    """The figures of the cache, for programs."""
    return jsonify(figures_of_this_worker())


@pages.context_processor
def figures() -> dict[str, object]:
    return {"figures": figures_of_this_worker(), "worker": os.getpid()}


@pages.after_request
def report(response: Response) -> Response:
    response.headers["Server-Timing"] = server_timing()
    response.headers["X-Worker"] = str(os.getpid())
    # A browser may keep what has an ETag, but has to ask each time: it doesn't know when a note changes.
    response.headers["Cache-Control"] = "no-cache" if "ETag" in response.headers else "no-store"
    return response


def _form() -> tuple[str, str]:
    title = request.form.get("title", "").strip()
    content = request.form.get("text", "").strip()
    if not title or not content:
        abort(400, "A note needs a title and a text.")
    return title, content
