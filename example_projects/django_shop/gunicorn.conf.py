"""gunicorn's settings for the shop; run.py adds the address and the number of workers."""

wsgi_app = "shop.wsgi:application"

# Threads, because a browser opens connections ahead of need, and a plain sync worker waits on each of them.
worker_class = "gthread"
threads = 2

# A kept-alive connection stays with one worker. Closed after each answer, the next one may come from any
# worker, which is what this example is there to show. A real site keeps gunicorn's default.
keepalive = 0

graceful_timeout = 5
control_socket_disable = True
