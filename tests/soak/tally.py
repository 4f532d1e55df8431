"""What a soak counted, scope by scope, and how it is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.soak.leaks import Trend

LOSSES = frozenset({"lost", "loss"})
"""Kinds of what oracles find: something that was stored, and isn't there without a reason."""
FAILURES = frozenset({"died", "hang", "error", "unavailable", "failure"})
"""A process that came to an end or to a standstill, an error that nobody was promised."""
_SHOWN = 3
"""Examples of each kind of what was wrong."""


@dataclass
class Tally:
    scope: str
    seconds: float = 0.0
    operations: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    found: list[dict[str, Any]] = field(default_factory=list)
    """What was wrong: `kind`, and the evidence."""
    trends: list[Trend] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be done here, and what was counted besides."""

    def count(self, kinds: Iterable[str] | None) -> int:
        """Findings of these kinds; None: of those that are neither losses nor failures."""
        wanted = set(LOSSES | FAILURES) if kinds is None else set(kinds)
        return sum((one["kind"] in wanted) is (kinds is not None) for one in self.found)

    @property
    def leaks(self) -> list[Trend]:
        return [trend for trend in self.trends if trend.grows]

    @property
    def is_right(self) -> bool:
        return not self.found and not self.leaks and self.operations > 0

    def fail(self, why: str, **evidence: Any) -> None:
        self.found.append({"kind": "failure", "why": why, **evidence})


_HEADS = ("scope", "seconds", "operations", "faults", "losses", "wrong values", "failures", "leaks")


def table(tallies: Sequence[Tally]) -> str:
    rows = [_HEADS, *map(_row, tallies)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(_HEADS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    for tally in tallies:
        lines += ["", f"{tally.scope}:", *_details(tally)]
    return "\n".join(lines)


def _row(tally: Tally) -> tuple[str, ...]:
    numbers = (
        tally.operations,
        tally.faults.total(),
        tally.count(LOSSES),
        tally.count(None),
        tally.count(FAILURES),
        len(tally.leaks),
    )
    return (tally.scope, f"{tally.seconds:.0f}", *(f"{number:,}" for number in numbers))


def _details(tally: Tally) -> list[str]:
    faults = ", ".join(f"{n:,} {what}" for what, n in sorted(tally.faults.items()) if n)
    lines = [f"faults: {faults or 'none'}"]
    lines += [f"{trend}" for trend in tally.trends]
    lines += tally.notes
    if not tally.operations:
        lines.append("WRONG: nothing was done")
    lines += [f"WRONG: {one}" for one in _examples(tally.found)]
    return [f"  {line}" for line in lines]


def _examples(found: list[dict[str, Any]]) -> list[str]:
    """A few of each kind; of a traceback the end."""
    kinds = Counter(one["kind"] for one in found)
    examples = []
    for kind, count in kinds.items():
        of_kind = [one for one in found if one["kind"] == kind][:_SHOWN]
        for one in of_kind:
            evidence = {name: str(value)[-600:] for name, value in one.items() if name != "kind"}
            examples.append(f"{kind}: {evidence}")
        if count > len(of_kind):
            examples.append(f"{kind}: {count - len(of_kind):,} more")
    return examples
