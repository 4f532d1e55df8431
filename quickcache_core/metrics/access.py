"""Who may see figures over HTTP, as far as both frameworks say it in the same way."""

from __future__ import annotations

import hmac


def has_token(authorization: str, token: str) -> bool:
    """Whether an Authorization header has that bearer token. An empty token is nobody's."""
    scheme, _, given = authorization.strip().partition(" ")
    return (
        bool(token)
        and scheme.lower() == "bearer"
        # Of equal speed for every wrong one.
        and hmac.compare_digest(
            given.strip().encode(errors="surrogatepass"), token.encode(errors="surrogatepass")
        )
    )


def check_token(name: str, token: object) -> None:
    """Raises `ValueError` for what is no token that can't be guessed."""
    if not isinstance(token, str) or len(token) < 16:
        raise ValueError(f"{name}: give a string of at least 16 characters, as secrets.token_urlsafe() makes")
