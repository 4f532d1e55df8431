"""Reads near a server in greenlets, with everything patched: `python -m tests.redis.greenlet_reader URL`."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
import redis  # noqa: E402

from tests.redis.reading_near import NearReader, raw  # noqa: E402


def sees(reader: NearReader, value: str) -> None:
    end = time.monotonic() + 10
    while reader.get("k") != value:
        assert time.monotonic() < end, value


def main(url: str) -> None:
    reader = NearReader(url)
    other = redis.Redis.from_url(url, protocol=2)
    other.flushall()
    other.set(raw("k"), "0")
    switches = 0

    def count() -> None:
        nonlocal switches
        while True:
            switches += 1
            gevent.sleep(0)

    counter = gevent.spawn(count)
    # All come by while the first one connects.
    jobs = [gevent.spawn(reader.get, "k") for _ in range(20)]
    gevent.joinall(jobs)
    assert {job.value for job in jobs} == {"0"}, [job.value for job in jobs]
    assert switches > 0
    counter.kill()

    end = time.monotonic() + 10
    while True:
        reader.was_asked()
        reader.get("k")
        if not reader.was_asked():
            break
        assert time.monotonic() < end, "nothing is near"

    def hits() -> None:
        for _ in range(20_000):
            reader.get("k")

    # A get that is answered from here doesn't let others in between, though it polls now and then.
    order: list[str] = []
    first = gevent.spawn(lambda: (hits(), order.append("first")))
    second = gevent.spawn(lambda: order.append("second"))
    gevent.joinall([first, second])
    assert order == ["first", "second"], order

    for n in range(1, 50):
        other.set(raw("k"), str(n))
        jobs = [gevent.spawn(sees, reader, str(n)) for _ in range(5)]
        gevent.joinall(jobs, raise_error=True)
    reader.close()
    other.close()


if __name__ == "__main__":
    main(sys.argv[1])
