from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from quickcache_core.store.redis import bridge

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


async def later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def doubled(value: int) -> int:
    return 2 * bridge.wait(later(value))


def test_result() -> None:
    """Synchronous code gets the results of coroutines, and its caller its own."""

    async def main() -> None:
        assert await bridge.run(doubled, 4) == 8
        assert await bridge.run(lambda: doubled(1) + doubled(2)) == 6
        assert await bridge.run(dict, a=1) == {"a": 1}

    asyncio.run(main())


def test_errors() -> None:
    """They are raised where the code waits, and come out of it like any other."""

    def recover() -> str:
        with pytest.raises(LookupError):
            bridge.wait(fail(LookupError("one")))
        return "recovered"

    async def main() -> None:
        assert await bridge.run(recover) == "recovered"
        with pytest.raises(LookupError, match="two"):
            await bridge.run(bridge.wait, fail(LookupError("two")))
        with pytest.raises(ZeroDivisionError):
            await bridge.run(lambda: 1 / 0)

    asyncio.run(main())


def test_other_tasks_go_on_meanwhile() -> None:
    """The event loop isn't held up: this would never end otherwise."""

    async def main() -> None:
        reached = asyncio.Event()
        waiting = asyncio.create_task(bridge.run(bridge.wait, reached.wait()))
        await asyncio.sleep(0)
        reached.set()
        assert await waiting is True

    asyncio.run(main())


def test_many_tasks() -> None:
    """Each has its own."""

    async def main() -> None:
        tasks = [bridge.run(doubled, number) for number in range(500)]
        assert await asyncio.gather(*tasks) == [2 * number for number in range(500)]

    asyncio.run(main())


def test_nested() -> None:
    """Code that was run this way may await what runs code this way."""

    async def inner(value: int) -> int:
        return await bridge.run(doubled, value)

    async def main() -> None:
        assert await bridge.run(lambda: bridge.wait(inner(3)) + doubled(1)) == 8

    asyncio.run(main())


def test_context_variables() -> None:
    """The code sees those of its caller, who sees what it set; other tasks don't."""

    def paint(value: str) -> tuple[str, str]:
        before = colour.get()
        bridge.wait(asyncio.sleep(0))
        colour.set(value)
        bridge.wait(asyncio.sleep(0))
        return before, colour.get()

    async def one(value: str) -> None:
        colour.set(f"{value} primer")
        assert await bridge.run(paint, value) == (f"{value} primer", value)
        assert colour.get() == value

    async def main() -> None:
        await asyncio.gather(*(one(value) for value in ("red", "green", "blue")))
        assert colour.get() == "none"

    asyncio.run(main())


class TestCancellation:
    def test_raised_where_the_code_waits(self) -> None:
        """It can clean up, and even wait for that."""
        seen: list[object] = []

        def work() -> None:
            try:
                bridge.wait(asyncio.sleep(3600))
            except asyncio.CancelledError as error:
                seen.append(type(error))
                seen.append(bridge.wait(later("cleaned up")))
                raise

        async def main() -> None:
            task = asyncio.create_task(bridge.run(work))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert seen == [asyncio.CancelledError, "cleaned up"]

    def test_timeout(self) -> None:
        """As around any other await."""

        async def main() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await bridge.run(bridge.wait, asyncio.sleep(3600))

        asyncio.run(main())

    def test_coroutine_that_is_dropped(self) -> None:
        """The code is ended where it waits."""
        seen: list[object] = []

        def work() -> None:
            try:
                bridge.wait(asyncio.sleep(3600))
            finally:
                seen.append("ended")

        async def main() -> None:
            running = bridge.run(work)
            running.send(None)
            running.close()

        asyncio.run(main())
        assert seen == ["ended"]


def test_outside_an_event_loop() -> None:
    """An error that says what to do instead."""
    running = bridge.run(doubled, 1)
    with pytest.raises(RuntimeError, match="no running asyncio event loop; call the synchronous method"):
        running.send(None)


def test_waiting_where_nobody_can() -> None:
    """Neither in plain code nor in a coroutine's own, nor in a thread that the code starts."""

    def in_a_thread() -> None:
        thread = threading.Thread(target=check)
        thread.start()
        thread.join()

    def check() -> None:
        assert not bridge.is_bridged()
        with pytest.raises(RuntimeError, match=r"only where bridge\.run"):
            bridge.wait(later(1))
        seen.append(True)

    async def main() -> None:
        check()
        await bridge.run(in_a_thread)
        assert await bridge.run(bridge.is_bridged)

    seen: list[bool] = []
    check()
    asyncio.run(main())
    assert len(seen) == 3
