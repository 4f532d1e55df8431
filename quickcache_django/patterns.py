"""Patterns of keys, as Redis writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Final

_SPECIAL: Final = frozenset("*?[\\")


class KeyPattern:
    r"""`*` is any number of characters, `?` one, `[ab]`, `[a-z]` and `[^a]` one of these or none of them, and
    `\` takes the next character as it is. The whole key has to match.

    Raises `TypeError` for what is no string.
    """

    def __init__(self, pattern: str) -> None:
        if not isinstance(pattern, str):
            raise TypeError(f"pattern={pattern!r}: give a string, such as 'user:*'")
        self.beginning = "".join(takewhile(lambda character: character not in _SPECIAL, pattern))
        """All keys that match begin with this."""
        self._expression = re.compile("".join(_parts(pattern)), re.DOTALL)

    def matches(self, key: str) -> bool:
        return self._expression.fullmatch(key) is not None


def _parts(pattern: str) -> Iterator[str]:
    """The same as a regular expression."""
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            if not pattern.startswith("*", at):
                yield ".*"
        elif character == "?":
            yield "."
        elif character == "[":
            found, at = _one_of(pattern, at)
            yield found
        else:
            if character == "\\" and at < len(pattern):
                character = pattern[at]
                at += 1
            yield re.escape(character)


def _one_of(pattern: str, at: int) -> tuple[str, int]:
    """What begins there, after a bracket, and where it ends; one that is never closed ends with the pattern,
    as in Redis.
    """
    excludes = pattern.startswith("^", at)
    at += excludes
    found = ""
    while at < len(pattern) and pattern[at] != "]":
        first = pattern[at]
        if first == "\\" and at + 1 < len(pattern):
            found += re.escape(pattern[at + 1])
            at += 2
        elif pattern.startswith("-", at + 1) and at + 2 < len(pattern):
            first, last = sorted((first, pattern[at + 2]))
            found += f"{re.escape(first)}-{re.escape(last)}"
            at += 3
        else:
            found += re.escape(first)
            at += 1
    if not found:
        return "." if excludes else "(?!)", at + 1
    return f"[{'^' if excludes else ''}{found}]", at + 1
