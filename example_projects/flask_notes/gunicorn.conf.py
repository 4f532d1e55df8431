"""gunicorn's settings for the notes; run.py adds the address and the number of workers."""

wsgi_app = "notes:create_app()"

worker_class = "gthread"
threads = 4

# A kept-alive connection stays with one worker. Closed after each answer, the next one may come from any
# worker, which is what this example is there to show. A real site keeps gunicorn's default.
keepalive = 0

graceful_timeout = 5
control_socket_disable = True
