"""Passes on TCP connections to a port, in a process of its own, so that a test can stop it or slow it down:
the network fails in silence, or takes its time.

    python -m tests.redis.relay PORT        prints the port that it listens on; ends with its standard input

A line of its standard input is by how many seconds it is late from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import subprocess
import sys
from pathlib import Path


class Relay:
    """`stop()`, `slow_down()` and `go_on()` as often as one likes."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, "-m", "tests.redis.relay", str(port)]
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def slow_down(self, seconds: float) -> None:
        """Whatever is said, in either direction, arrives that much later."""
        self._tell(seconds)

    def go_on(self) -> None:
        """At full speed."""
        self._process.send_signal(signal.SIGCONT)
        self._tell(0.0)

    def _tell(self, seconds: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"%f\n" % seconds)
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Line:
    """What is on its way. It arrives in the order in which it was sent, over all connections, as at a server
    that is slow: what somebody sent who then gave up doesn't come after what was sent later.
    """

    def __init__(self) -> None:
        self.delay = 0.0
        self._last = 0.0
        self._under_way = 0

    def send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Nothing, for the end."""
        loop = asyncio.get_running_loop()
        if not self._under_way and not self.delay:
            self._arrive(writer, data)
            return
        # No two at one instant: the loop keeps no order among those.
        self._last = max(loop.time() + self.delay, math.nextafter(self._last, math.inf))
        self._under_way += 1
        loop.call_at(self._last, self._arrive_late, writer, data)

    def _arrive_late(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self._under_way -= 1
        self._arrive(writer, data)

    def _arrive(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if data:
            writer.write(data)
        else:
            writer.close()


async def serve(port: int) -> None:
    line = Line()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                line.send(writer, data)
                await writer.drain()
        line.send(writer, b"")

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pass_on(reader, their_writer), pass_on(their_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while told := await asyncio.to_thread(sys.stdin.readline):
        line.delay = float(told)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
