"""Spares callers the wait for servers that can't be reached."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from quickcache_core.errors import StoreUnavailable

logger = logging.getLogger(__name__)

PROBE_INTERVAL: Final = 1.0
"""Seconds from one failed attempt to the next during an outage."""
PATIENCE: Final = 2
"""Failures in a row that make an outage: one may be a connection that was cut."""
REPORT_INTERVAL: Final = 60.0
"""Seconds between two outages that are logged."""
_LONGEST_PROBE: Final = 30.0
"""Seconds after which a probe is taken for lost, and somebody else may try."""


class Circuit:
    """Open during an outage: one caller in a second may try, all others are told so at once.

    Any thread may use it; nothing in it waits.
    """

    def __init__(
        self, name: str, recovered: Callable[[], object], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.is_open = False
        self._recovered = recovered
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failures = 0
        self._reason = ""
        self._probe_at = 0.0
        self._report_at = float("-inf")
        self._is_reported = False

    def enter(self) -> bool:
        """Before each attempt. Raises `StoreUnavailable` while the circuit is open. True: this is the
        probe of an outage; its end has to be told with `worked`, `failed` or `abandoned`.
        """
        if not self.is_open:
            return False
        with self._lock:
            now = self._monotonic()
            if now < self._probe_at:
                raise StoreUnavailable(f"{self.name} is not asked just now, since it failed: {self._reason}")
            self._probe_at = now + _LONGEST_PROBE
        return True

    def check(self) -> None:
        """Raises `StoreUnavailable` if it was opened since `enter`."""
        if self.is_open:
            raise StoreUnavailable(f"{self.name} is not asked just now, since it failed: {self._reason}")

    def worked(self) -> None:
        """An answer came, be it an error."""
        if not self._failures:
            return
        with self._lock:
            was_open, self.is_open, self._failures = self.is_open, False, 0
            is_reported, self._is_reported = self._is_reported, False
        if was_open:
            self._recovered()
        if is_reported:
            logger.warning("%s answers again", self.name)

    def failed(self, error: BaseException, *, is_certain: bool = False) -> None:
        """No answer came. `is_certain`: this alone makes an outage."""
        with self._lock:
            now = self._monotonic()
            self._failures += PATIENCE if is_certain else 1
            self._reason = str(error) or type(error).__name__
            self._probe_at = now + PROBE_INTERVAL
            if self._failures < PATIENCE or self.is_open:
                return
            self.is_open = True
            self._is_reported = now >= self._report_at
            if self._is_reported:
                self._report_at = now + REPORT_INTERVAL
            is_reported = self._is_reported
        if is_reported:
            logger.warning("%s can't be used; it is tried again each second: %s", self.name, self._reason)

    def abandoned(self) -> None:
        """The probe ended without a result: its task was cancelled, say."""
        with self._lock:
            self._probe_at = self._monotonic()
