"""gunicorn's settings for the notes; run.py adds the address."""

wsgi_app = "notes:create_app()"

# One worker with threads, not several workers: `cache.delete` and `cache.delete_memoized` reach the cache of
# the worker that runs them. In scope memory each worker has its own, so another one would go on showing what
# has been deleted.
workers = 1
worker_class = "gthread"
threads = 8

graceful_timeout = 5
control_socket_disable = True
