"""A queue of writes that outlives its processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from quickcache_core.clock import Clock
from quickcache_core.errors import ConfigError, SerializationError
from quickcache_core.serializer.base import BaseSerializer, serializer_name
from quickcache_core.serializer.isolation import loader, thaw, through
from quickcache_core.serializer.signing import DIGEST_BYTES, Signer
from quickcache_core.sources.queue import (
    REMOVED,
    DeadLetter,
    Unreadable,
    Write,
    WriteQueue,
    dead_letter,
    described,
)
from quickcache_core.sources.queue_file import QueueFile

_TEXT, _BYTES = b"t", b"b"
_MANY: Final = 500
"""Keys that are asked for in one statement."""


class WriteCodec:
    """Turns values into what lies in the file, and back. What can run code when it is read is signed,
    together with its key and the name of its queue, and read only if the signature is right.
    """

    def __init__(
        self, serializer: BaseSerializer, signer: Callable[[], Signer | None], allow_unsigned: bool
    ) -> None:
        self.format = serializer_name(serializer)
        self._load = loader(serializer)
        self._serialize = through(serializer, self._load)
        self._is_signed = serializer.needs_signature and not allow_unsigned
        self._signer = signer
        if self._is_signed:
            self._key()

    def _key(self) -> Signer:
        signer = self._signer()
        if signer is None:
            raise ConfigError(
                "secret",
                None,
                "writes in a durable queue are read by other processes, and this serializer could run what "
                "somebody else put there; set a secret to sign them, or serializer='json'",
            )
        return signer

    def encode(self, name: str, key: bytes, value: Any) -> bytes:
        """Raises `SerializationError`."""
        data = self._serialize(value).data
        raw = _TEXT + data.encode(errors="surrogatepass") if isinstance(data, str) else _BYTES + bytes(data)
        return self._key().digest(_signed(name, key, raw)) + raw if self._is_signed else raw

    def decode(self, name: str, key: bytes, form: str, raw: bytes) -> Any:
        """Raises `SerializationError`."""
        if form != self.format:
            raise SerializationError(f"It was written with serializer {form}, this is {self.format}")
        if self._is_signed:
            digest, raw = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:]
            if not self._key().has_signed(_signed(name, key, raw), digest):
                raise SerializationError("Its signature is wrong, or was made with another secret")
        body = raw[1:]
        return self._load(body.decode(errors="surrogatepass") if raw[:1] == _TEXT else body)


def _signed(name: str, key: bytes, raw: bytes) -> bytes:
    label = name.encode(errors="surrogatepass")
    return b"%d:%b%d:%b%b" % (len(label), label, len(key), key, raw)


class DurableQueue(WriteQueue):
    """In a file: a write is kept from the moment when `put` returns, whatever happens to the process.

    All processes that name the same file and queue share it, and one of them at a time flushes; another one
    takes over when it ends. What was written to the source when a process was killed, and was not yet
    forgotten here, is written once more.
    """

    is_durable = True

    def __init__(self, file: QueueFile, name: str, codec: WriteCodec, clock: Clock) -> None:
        self.file = file
        self.name = name
        self._codec = codec
        self._clock = clock

    def put(self, values: Mapping[str, Any], limit: int) -> bool:
        now = self._clock.wall()
        rows = []
        for key, stored in values.items():
            raw = _raw(key)
            value = None if stored is REMOVED else self._codec.encode(self.name, raw, thaw(stored))
            rows.append((self.name, raw, self._codec.format, value, now))

        def insert(connection: sqlite3.Connection) -> bool:
            before = self._total(connection)
            connection.executemany(
                "INSERT INTO writes (name, key, version, format, value, since) "
                "VALUES (?, ?, random(), ?, ?, ?) ON CONFLICT (name, key) DO UPDATE SET "
                "version = excluded.version, format = excluded.format, value = excluded.value, error = NULL",
                rows,
            )
            after = self._total(connection)
            if before < after and after > limit:
                raise _Full
            return True

        try:
            return self.file.run(insert)
        except _Full:
            return False

    def _total(self, connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT number FROM totals WHERE name = ?", (self.name,)).fetchone()
        return row[0] if row else 0

    def find(self, keys: Iterable[str]) -> list[Write]:
        raws = [_raw(key) for key in keys]

        def select(connection: sqlite3.Connection) -> list[tuple[bytes, int, str, bytes | None]]:
            found: list[tuple[bytes, int, str, bytes | None]] = []
            for start in range(0, len(raws), _MANY):
                some = raws[start : start + _MANY]
                marks = ", ".join("?" * len(some))
                found += connection.execute(
                    "SELECT key, version, format, value FROM writes "  # noqa: S608 - question marks only
                    f"WHERE name = ? AND error IS NULL AND key IN ({marks})",
                    (self.name, *some),
                )
            return found

        return [
            Write(_key(raw), self._value(raw, form, value), version)
            for raw, version, form, value in self.file.read(select)
        ]

    def batch(self, limit: int, skip: Collection[str]) -> list[Write]:
        def select(connection: sqlite3.Connection) -> list[tuple[bytes, int, str, bytes | None]]:
            return connection.execute(
                "SELECT key, version, format, value FROM writes WHERE name = ? AND error IS NULL "
                "ORDER BY place LIMIT ?",
                (self.name, limit + len(skip)),
            ).fetchall()

        chosen: list[Write] = []
        for raw, version, form, value in self.file.read(select):
            key = _key(raw)
            if key not in skip and len(chosen) < limit:
                chosen.append(Write(key, self._value(raw, form, value), version))
        return chosen

    def _value(self, raw: bytes, form: str, value: bytes | None) -> Any:
        if value is None:
            return REMOVED
        try:
            return self._codec.decode(self.name, raw, form, value)
        except SerializationError as error:
            return Unreadable(described(error))

    def done(self, writes: Iterable[Write]) -> None:
        rows = [(self.name, _raw(write.key), write.version) for write in writes]
        now = self._clock.wall()

        def forget(connection: sqlite3.Connection) -> None:
            for name, raw, version in rows:
                gone = connection.execute(
                    "DELETE FROM writes WHERE name = ? AND key = ? AND version = ?", (name, raw, version)
                )
                if not gone.rowcount:
                    connection.execute(
                        "UPDATE writes SET since = ?, place = (SELECT max(place) + 1 FROM writes) "
                        "WHERE name = ? AND key = ?",
                        (now, name, raw),
                    )

        self.file.run(forget)

    def bury(self, write: Write, error: str) -> bool:
        return self.file.run(
            lambda connection: (
                connection.execute(
                    "UPDATE writes SET error = ? WHERE name = ? AND key = ? AND version = ?",
                    (error, self.name, _raw(write.key), write.version),
                ).rowcount
                > 0
            )
        )

    def dead(self) -> list[DeadLetter]:
        rows = self.file.read(
            lambda connection: connection.execute(
                "SELECT key, format, value, error FROM writes "
                "WHERE name = ? AND error IS NOT NULL ORDER BY place",
                (self.name,),
            ).fetchall()
        )
        return [
            dead_letter(_key(raw), self._value(raw, form, value), error) for raw, form, value, error in rows
        ]

    def revive(self, keys: Iterable[str] | None) -> int:
        return self._change_dead("UPDATE writes SET error = NULL, version = random()", keys)

    def discard(self, keys: Iterable[str] | None) -> int:
        return self._change_dead("DELETE FROM writes", keys)

    def _change_dead(self, change: str, keys: Iterable[str] | None) -> int:
        statement = f"{change} WHERE name = ? AND error IS NOT NULL"
        raws = None if keys is None else [_raw(key) for key in dict.fromkeys(keys)]

        def work(connection: sqlite3.Connection) -> int:
            if raws is None:
                changed: int = connection.execute(statement, (self.name,)).rowcount
                return changed
            return sum(
                connection.execute(f"{statement} AND key = ?", (self.name, raw)).rowcount for raw in raws
            )

        return self.file.run(work)

    def size(self) -> int:
        number: int = self._one("count(*)", 0)
        return number

    def has(self, number: int) -> bool:
        counted: tuple[int] = self.file.read(
            lambda connection: connection.execute(
                "SELECT count(*) FROM (SELECT 1 FROM writes WHERE name = ? AND error IS NULL LIMIT ?)",
                (self.name, number),
            ).fetchone()
        )
        return counted[0] >= number

    def span(self) -> tuple[int, int] | None:
        first = self._one("min(place)", None)
        return None if first is None else (first, self._one("max(place)", first))

    def oldest_age(self) -> float | None:
        since = self._one("since", None, "ORDER BY place LIMIT 1")
        return None if since is None else max(self._clock.wall() - since, 0.0)

    def _one(self, what: str, default: Any, end: str = "") -> Any:
        row = self.file.read(
            lambda connection: connection.execute(
                f"SELECT {what} FROM writes WHERE name = ? AND error IS NULL {end}",  # noqa: S608 - ours
                (self.name,),
            ).fetchone()
        )
        return default if row is None or row[0] is None else row[0]

    def close(self) -> None:
        self.file.close()

    def flushing(self) -> AbstractContextManager[bool]:
        return self.file.flushing(self.name)


class _Full(Exception):
    """There are as many as there may be."""


def _raw(key: str) -> bytes:
    return key.encode(errors="surrogatepass")


def _key(raw: bytes) -> str:
    return raw.decode(errors="surrogatepass")
