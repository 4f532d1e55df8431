"""What of a store goes into a snapshot, and how it comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from quickcache_core.entry import FOREVER
from quickcache_core.serializer.isolation import thaw
from quickcache_core.store.base import Bounds, Record, Store
from quickcache_core.store.keyspace import SEPARATOR, namespaces_in

GENERATIONS: Final = f"{SEPARATOR * 3}generations"
"""Beside the keys: the numbers of the generations that these belong to."""
_TOO_LARGE: Final = 2**63


def saved(store: Store, freeze: Callable[[Any], Any] | None) -> list[Record]:
    """All live entries, and which generations of namespaces they are of. Looks at every entry."""
    # Not what a caller has under that key: it would keep all the others from being loaded.
    records = [record for record in store.records() if record.key != GENERATIONS]
    for record in records:
        if record.key.startswith(SEPARATOR):
            for name in namespaces_in(record.key):
                store.generation(name)
    numbers: Any = {name: number for name, number in store.generations().items() if number}
    if numbers:
        # Else what was cleared before it was saved would be back in a process that counts from 0.
        stored = numbers if freeze is None else freeze(numbers)
        records.append(Record(GENERATIONS, stored, FOREVER))
    return records


def are_generations(value: object) -> bool:
    """Whether that may be what was saved under `GENERATIONS`."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and type(number) is int and 0 <= number < _TOO_LARGE
        for name, number in value.items()
    )


def load_saved(store: Store, records: Iterable[Record], bounds: Bounds) -> None:
    """Replace all entries. If `records` raises, everything is as it was."""
    numbers: dict[str, int] = {}

    def entries() -> Iterator[Record]:
        for record in records:
            if record.key == GENERATIONS:
                numbers.update(thaw(record.value))
            else:
                yield record

    store.load(entries(), bounds)
    store.set_generations(numbers)
