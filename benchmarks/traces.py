"""Recorded request traces, as lists of keys.

The files are not part of this repository: several of them have no stated terms. `QUICKCACHE_TRACES` names the
folder that holds them (default: `../shared/traces`, seen from the repository). Of each the first million
requests are used.

Sources: cache2k's ORM traces (CC BY 4.0, headissue GmbH, Jens Wilke); OLTP from Megiddo and Modha, "ARC: a
self-tuning, low overhead replacement cache" (FAST 2003); the LIRS authors' traces (S. Jiang, X. Zhang);
AdaptSize's sample request trace (Berger, Sitaraman, Harchol-Balter, NSDI 2017); CloudPhysics w106 and the
sample of libCacheSim; address traces of UCSD's course CSE 240A.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

REQUESTS = 1_000_000
SHARES = (0.001, 0.01, 0.1, 0.2)
LEAST_CAPACITY = 32

Parse = Callable[[bytes], Iterable[object]]


@dataclass(frozen=True)
class Trace:
    file: str
    family: str
    parse: Parse
    sizes: Parse | None = None
    """Gives the bytes of each request, where the trace tells them."""

    @property
    def name(self) -> str:
        return self.file.split(".")[0]

    def keys(self, folder: Path, limit: int = REQUESTS) -> list[str]:
        """The first `limit` requests; one string object per distinct key."""
        packed = folder / self.file
        distinct: dict[object, str] = {}
        keys = []
        for request in islice(self.parse(unpacked(packed)), limit):
            key = distinct.get(request)
            if key is None:
                key = distinct[request] = f"{self.name}:{len(distinct)}"
            keys.append(key)
        return keys

    def sized_keys(self, folder: Path, limit: int = REQUESTS) -> list[tuple[str, int]]:
        """As `keys`, with bytes: an object has the size of its first request."""
        if self.sizes is None:
            raise TypeError(f"{self.name} tells no sizes")
        keys = self.keys(folder, limit)
        first: dict[str, int] = {}
        for key, size in zip(keys, self.sizes(unpacked(folder / self.file)), strict=False):
            first.setdefault(key, int(str(size)))
        return [(key, first[key]) for key in keys]


def capacities(keys: Iterable[str]) -> dict[float, int]:
    """By share of the distinct keys; those that are too small to say anything are left out."""
    distinct = len(set(keys))
    return {share: int(distinct * share) for share in SHARES if int(distinct * share) >= LEAST_CAPACITY}


def folder() -> Path:
    given = os.environ.get("QUICKCACHE_TRACES")
    path = Path(given) if given else Path(__file__).parents[2] / "shared" / "traces"
    if not path.is_dir():
        sys.exit(
            f"No folder of traces at {path}. Set QUICKCACHE_TRACES to one with the files that "
            "benchmarks/traces.py lists; its first lines name their sources."
        )
    return path


def unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    try:
        import zstandard
    except ImportError:
        command = shutil.which("zstd")
        if command is None:
            sys.exit(f"{path.name} is packed with zstd: pip install zstandard, or install the zstd command.")
        return subprocess.run([command, "-dc", str(path)], check=True, capture_output=True).stdout
    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file).read()


def _lines(text: bytes) -> Iterator[bytes]:
    """One key a line; a line of "*" marks something in the LIRS traces and is no request."""
    return (line for line in map(bytes.strip, text.splitlines()) if line and line != b"*")


def _integers(data: bytes) -> Iterable[int]:
    # Any order of the bytes tells the keys apart.
    return array("I", data[: len(data) // 4 * 4])


def _ranges(text: bytes) -> Iterator[int]:
    """ARC: first block, number of blocks, 0, number of the request."""
    for line in text.splitlines():
        first, count, *_ = line.split()
        yield from range(int(first), int(first) + int(count))


def _addresses(text: bytes) -> Iterator[bytes]:
    return (line.split()[1] for line in text.splitlines() if line.strip())


def _objects(text: bytes) -> Iterator[bytes]:
    """AdaptSize: time, id, bytes. An object of another size is another object."""
    return (line.split(maxsplit=1)[1] for line in text.splitlines() if line.strip())


def _blocks(text: bytes) -> Iterator[bytes]:
    """libCacheSim: version, time, operation, size, block; after a line of names."""
    return (line.rsplit(b",", 1)[1] for line in text.splitlines()[1:] if line)


def _object_sizes(text: bytes) -> Iterator[int]:
    return (int(line.split()[2]) for line in text.splitlines() if line.strip())


def _block_sizes(text: bytes) -> Iterator[int]:
    return (int(line.split(b",")[3]) for line in text.splitlines()[1:] if line)


TRACES = (
    Trace("cache2k_orm-busy.trace.xz", "orm", _integers),
    Trace("cache2k_orm-night.trace.xz", "orm", _integers),
    Trace("arc_OLTP.lis.zst", "oltp", _ranges),
    Trace("adapt_size_request.trace.xz", "adapt_size", _objects, _object_sizes),
    Trace("cloud_physics_w106.trace.xz", "cloud_physics", _integers),
    Trace("cloudPhysicsIO.csv.xz", "cloud_physics", _blocks, _block_sizes),
    *(Trace(f"address_{name}.trace.gz", "address", _addresses) for name in ("gcc", "gzip", "swim", "twolf")),
    *(
        Trace(f"lirs_{name}.trace.gz", name, _lines)
        for name in ("cs", "cpp", "gli", "ps", "sprite", "2_pools", "loop")
    ),
    *(Trace(f"lirs_multi{number}.trace.gz", "multi", _lines) for number in (1, 2, 3)),
    *(Trace(f"lirs_{name}.trace.gz", "synthetic", _lines) for name in ("scan", "zigzag", "backf")),
)
QUICK = ("cache2k_orm-busy", "arc_OLTP", "lirs_sprite", "lirs_multi3", "lirs_loop", "cloud_physics_w106")
