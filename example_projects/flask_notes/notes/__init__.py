"""Notes: a Flask application whose slow parts are cached by Flask-Caching, with QuickCache below it."""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask

from notes.cached import cache
from notes.storage import Storage
from notes.views import pages


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["CACHE_TYPE"] = "quickcache_flask.QuickCache"
    cache.init_app(app)
    app.extensions["notes"] = Storage(Path(os.environ["NOTES_DATABASE"]))
    app.register_blueprint(pages)
    return app
