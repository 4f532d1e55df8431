"""Signatures that tell our own bytes from anybody else's."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b

from quickcache_core.errors import ConfigError

logger = logging.getLogger(__name__)

# Below this, guessing is cheaper than stealing.
MIN_SECRET_BYTES = 16
DIGEST_BYTES = 32


class Signer:
    """HMAC-SHA256 with a key that is derived from `secret` for one `purpose`.

    The derivation keeps apart what one secret signs: a signature made elsewhere with the same secret, or for
    another purpose, is no good here. `fallbacks` are former secrets: good for checking, never for signing.
    Raises `ConfigError` for a secret that is no text or bytes, or shorter than `MIN_SECRET_BYTES`.
    """

    def __init__(self, secret: str | bytes, fallbacks: Iterable[str | bytes] = (), *, purpose: str) -> None:
        self._key = _derive("secret", secret, purpose)
        if isinstance(fallbacks, (str, bytes)):
            raise ConfigError(
                "secret_fallbacks", f"({len(fallbacks)} characters)", "give a list of secrets, not one secret"
            )
        self._keys = (self._key, *(_derive("secret_fallbacks", each, purpose) for each in fallbacks))

    def sign(self, data: bytes) -> str:
        """64 hexadecimal digits."""
        return hmac.digest(self._key, data, "sha256").hex()

    def digest(self, data: bytes, size: int = DIGEST_BYTES) -> bytes:
        """A shorter and faster signature, of `size` bytes: keyed BLAKE2b (RFC 7693)."""
        return blake2b(data, key=self._key, digest_size=size).digest()

    def has_signed(self, data: bytes, digest: bytes, size: int = DIGEST_BYTES) -> bool:
        """`verify` for a `digest` of that size; any other one is wrong."""
        # A loop, since `any` takes as long as the digest.
        for key in self._keys:
            if hmac.compare_digest(blake2b(data, key=key, digest_size=size).digest(), digest):
                return True
        return False

    def verify(self, data: bytes, signature: str) -> bool:
        """In a time that says nothing about how much of `signature` is right."""
        given = signature.encode(errors="surrogatepass")
        return any(
            hmac.compare_digest(hmac.digest(key, data, "sha256").hex().encode(), given) for key in self._keys
        )


Secret = str | bytes | None


class Secrets:
    """A secret and the former ones, or functions that are asked for them whenever one is needed."""

    def __init__(
        self,
        secret: Secret | Callable[[], Secret],
        fallbacks: Sequence[str | bytes] | Callable[[], Sequence[str | bytes]],
        *,
        purpose: str,
    ) -> None:
        self._secret = secret
        self._fallbacks = fallbacks
        self._purpose = purpose
        self._last: tuple[Secret, tuple[str | bytes, ...], Signer | None] = (None, (), None)

    def signer(self) -> Signer | None:
        """None without a secret. Derives keys only if another secret is given than the last time."""
        secret = self._secret() if callable(self._secret) else self._secret
        if secret is None:
            return None
        fallbacks = tuple(self._fallbacks() if callable(self._fallbacks) else self._fallbacks)
        last, last_fallbacks, signer = self._last
        if signer is None or secret != last or fallbacks != last_fallbacks:
            signer = Signer(secret, fallbacks, purpose=self._purpose)
            self._last = secret, fallbacks, signer
        return signer


def is_too_short(secret: object) -> bool:
    """To sign with. False for what is no str or bytes, which is wrong in another way."""
    if isinstance(secret, str):
        secret = secret.encode(errors="surrogatepass")
    return isinstance(secret, bytes) and len(secret) < MIN_SECRET_BYTES


_told: set[str] = set()
"""Settings with a secret that is left out. Once is enough for a process: they are read at each use."""


def without_short(secrets: Iterable[str | bytes], setting: str) -> list[str | bytes]:
    """Former secrets from a setting of a framework, which also signs with shorter ones than we do.

    A short one has signed nothing here, so nothing is lost without it: it is left out, with one warning.
    """
    secrets = list(secrets)
    enough = [secret for secret in secrets if not is_too_short(secret)]
    if len(enough) < len(secrets) and setting not in _told:
        _told.add(setting)
        logger.warning(
            "%d of %d in %s are shorter than %d bytes and left out: they can't have signed what is cached",
            len(secrets) - len(enough),
            len(secrets),
            setting,
            MIN_SECRET_BYTES,
        )
    return enough


def said_of_short(named: Iterable[tuple[str, object]]) -> Iterator[str]:
    """Of settings of a framework with a secret that is too short, the main one first."""
    for number, (setting, secret) in enumerate(named):
        if is_too_short(secret):
            outcome = "it is left out" if number else "what has to be signed can't be stored"
            yield f"{setting} is shorter than {MIN_SECRET_BYTES} bytes and signs no pickles: {outcome}"


def _derive(field: str, secret: object, purpose: str) -> bytes:
    # The errors say how long a secret is, never what it is: they end up in logs.
    if isinstance(secret, str):
        secret = secret.encode(errors="surrogatepass")
    if not isinstance(secret, bytes):
        raise ConfigError(field, f"(a {type(secret).__name__})", "a secret is str or bytes")
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(
            field,
            f"({len(secret)} bytes)",
            f"give at least {MIN_SECRET_BYTES} bytes that nobody can guess, such as those of "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return hmac.digest(secret, b"quickcache signature key\0" + purpose.encode(), "sha256")
