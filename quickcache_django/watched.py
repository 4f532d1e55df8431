"""What a view looks at while it makes a response: whether its page is for one visitor only."""

from __future__ import annotations

from functools import cache
from typing import Any, Self

from django.contrib.sessions.backends.base import SessionBase

_CSRF = "CSRF_COOKIE_NEEDS_UPDATE"
"""Django's own sign, in META, that a token was asked for."""


class Watched:
    """Around a call of a view: whether it looked at what belongs to one visitor only.

    The middleware that tells caches so (`Vary: Cookie`, a cookie) stands further out than a decorator.
    """

    def __init__(self, request: Any) -> None:
        self._request = request
        self._session: Any = getattr(request, "session", None)

    def __enter__(self) -> Self:
        self._accessed = getattr(self._session, "accessed", False)
        if self._accessed:
            self._session.accessed = False
        self._class = type(self._session)
        if isinstance(self._session, SessionBase):
            self._session.__class__ = _noticing(type(self._session))
        self._token = self._request.META.pop(_CSRF, None)
        return self

    def __exit__(self, *error: object) -> None:
        self._looked = bool(getattr(self._session, "accessed", False))
        if isinstance(self._session, SessionBase):
            self._session.__class__ = self._class
        if self._accessed:
            self._session.accessed = True
        # A token, a message or a nonce is for one request, also of a user who has pages of his own.
        self._is_for_once = _CSRF in self._request.META or self._has_messages() or self._has_nonce()
        if self._token is not None:
            self._request.META.setdefault(_CSRF, self._token)

    def _has_messages(self) -> bool:
        messages = getattr(self._request, "_messages", None)
        return messages is not None and (messages.used or messages.added_new) and len(messages) > 0

    def _has_nonce(self) -> bool:
        """Of `Content-Security-Policy`: Django's is false until it is asked for, that of django-csp isn't
        there.
        """
        return bool(getattr(self._request, "_csp_nonce", None))

    def is_personal(self, user: Any, *, by_user: bool) -> bool:
        """Whether the page is for less visitors than its key."""
        if self._is_for_once:
            return True
        if not self._looked or user is not None:
            return False
        # Nobody in particular. Among those who have no session are all alike.
        return not (by_user and self._session is not None and self._session.is_empty())


@cache
def _noticing(kind: type[SessionBase]) -> type[SessionBase]:
    """A class of sessions that count it as a look, too, if they are asked for their key: baskets go by it."""

    def session_key(session: Any) -> Any:
        session.accessed = True
        return session._get_session_key()

    return type(kind.__name__, (kind,), {"session_key": property(session_key), "__module__": kind.__module__})
