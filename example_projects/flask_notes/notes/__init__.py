"""Notes: a Flask application whose slow parts are cached by Flask-Caching, with QuickCache below it."""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask

from notes.cached import cache
from notes.storage import Storage
from notes.views import pages

DATABASE = Path(__file__).resolve().parents[1] / "var" / "notes.sqlite3"


def create_app() -> Flask:
    app = Flask(__name__)
    # Signs what lies in the files of the cache. Good enough for notes that are for show only.
    app.secret_key = os.environ.get("NOTES_SECRET_KEY", "an example, not a secret")
    database = Path(os.environ.get("NOTES_DATABASE", DATABASE)).resolve()

    app.config["CACHE_TYPE"] = "quickcache_flask.QuickCache"
    # One cache for all workers: what one of them deletes, none shows any more.
    app.config["CACHE_OPTIONS"] = {"location": f"shared://{database.parent / 'cache'}", "max_bytes": "16MB"}
    cache.init_app(app)
    app.extensions["notes"] = Storage(database)
    app.register_blueprint(pages)
    return app
