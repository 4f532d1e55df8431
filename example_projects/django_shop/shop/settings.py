"""Settings of the shop. The part to look at is CACHES; the rest is an ordinary small Django project."""

import os
from pathlib import Path
from urllib.parse import quote

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("SHOP_DATA", BASE_DIR / "var")).resolve()
DATABASE_FILE = DATA_DIR / "shop.sqlite3"
KEPT_FOR = int(os.environ.get("SHOP_KEPT_FOR", "300"))  # seconds

CACHES = {
    "default": {
        "BACKEND": "quickcache_django.QuickCache",
        # One cache for all workers, in files that survive a restart. Without this line each worker has its
        # own, in its memory.
        "LOCATION": f"shared://{DATA_DIR / 'cache'}",
        # The room that these files take, from the start. Left out, it is 128 MB, more than the shop can use.
        "OPTIONS": {"MAX_BYTES": "16MB"},
    },
}

# In the cache for all workers, and in the database too: an entry may leave a cache at any time, and nobody
# should be logged out by that.
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        # rw: without c, so that a file that was moved away is an error, and not made anew. Connections last
        # for a request, or they would go on with the file under its other name.
        "NAME": f"file:{quote(str(DATABASE_FILE))}?mode=rw",
        "OPTIONS": {
            # Several workers write: wait for each other instead of failing with "database is locked".
            "transaction_mode": "IMMEDIATE",
            "timeout": 10,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    },
}

INSTALLED_APPS = [
    "django.contrib.sessions",
    "quickcache_django",
    "catalogue",
]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "catalogue.database.SayThatItIsOff",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    },
]

ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True

# Good enough for a shop that sells nothing and listens on the loopback address only.
SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "an example, not a secret: the shop is for show only")
DEBUG = False

# What goes wrong is to be seen in gunicorn's log; by default Django would send it by mail.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
