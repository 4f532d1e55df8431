"""The pages."""

from __future__ import annotations

import os

from flask import Blueprint, Response, abort, jsonify, redirect, render_template, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from notes import cached
from notes.figures import figures_of_this_worker
from notes.measuring import measured, measurements, server_timing

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


@pages.post("/notes")
def add() -> AnyResponse:
    title, text = _form()
    note_id = cached.storage().add(title, text)
    cached.forget(note_id)
    return redirect(url_for("pages.show", note_id=note_id))


@pages.post("/notes/<int:note_id>")
def change(note_id: int) -> AnyResponse:
    title, text = _form()
    cached.storage().change(note_id, title, text)
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
    response.headers["Cache-Control"] = "no-store"
    return response


def _form() -> tuple[str, str]:
    title = request.form.get("title", "").strip()
    text = request.form.get("text", "").strip()
    if not title or not text:
        abort(400, "A note needs a title and a text.")
    return title, text
