"""Tokens of those who look at figures over HTTP."""

from __future__ import annotations

import pytest

from quickcache_core.metrics.access import check_token, has_token

TOKEN = "a token that nobody guesses"


@pytest.mark.parametrize(
    ("header", "token", "expected"),
    [
        (f"Bearer {TOKEN}", TOKEN, True),
        (f"BEARER {TOKEN}", TOKEN, True),
        (f"Bearer {TOKEN} more", TOKEN, False),
        (TOKEN, TOKEN, False),
        ("", TOKEN, False),
        ("Bearer ", "", False),
        ("Bearer", "", False),
        ("", "", False),
        ("Bearer \udcff", TOKEN, False),
        ("Bearer ?", "\udcff", False),
    ],
)
def test_bearer_tokens(header: str, token: str, expected: bool) -> None:
    """Exactly that token; an empty one is nobody's, and odd characters are no error."""
    assert has_token(header, token) is expected


@pytest.mark.parametrize("token", [None, "", "x" * 15, b"x" * 20, 5])
def test_tokens_that_are_none(token: object) -> None:
    with pytest.raises(ValueError, match="TOKEN: give a string"):
        check_token("TOKEN", token)
