"""What one conformance run found, and how it is printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Outcome:
    """The result of one foreign test suite. `problems` make the run fail although no single test did."""

    suite: str
    subject: str = ""
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Reason by test."""
    changed: dict[str, str] = field(default_factory=dict)
    """Why, by test whose body or settings are not the suite's own."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why, by group of tests that were not asked to run."""
    operations: int = 0
    """How often the cache under test was read or written."""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.failed and not self.problems

    def text(self) -> str:
        lines = [
            f"{self.suite} ({self.subject}): {'passed' if self.ok else 'FAILED'} in {self.seconds:.0f} s",
            f"  {self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped,"
            f" {self.operations} operations on the cache under test",
        ]
        lines += [f"  FAILED {test}" for test in self.failed]
        lines += [f"  PROBLEM {problem}" for problem in self.problems]
        lines += [
            f"  skipped {count}: {reason}" for reason, count in Counter(self.skipped.values()).most_common()
        ]
        lines += [f"  changed {test}: {why}" for test, why in self.changed.items()]
        lines += [f"  left out {group}: {why}" for group, why in self.left_out.items()]
        return "\n".join(lines)
