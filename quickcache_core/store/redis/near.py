"""The near store of scope `redis`: what this process last read, until a server says that it changed.

The rules. `stamps[slot]` is raised, from one counter, for each key that a server says has changed (a *push*),
and for each own write once it is answered. A value is kept with the label that the counter had before the GET
was sent. It is valid while the stamps of its slot and of the whole cache are no higher than its label.
Nothing is valid, whatever its label, while it isn't sure that pushes reach us: then the stamp of the whole
cache is `UNTRUSTED`. That is the case until there is a tracking connection to every primary, and again once
one is lost, once the client is about to talk to other servers, in a child after a fork, and whenever the
*lease* is over: the newest PING that was answered was sent more than `LEASE` seconds ago.

Why no value outlives the bound. Let a key change at a server at time c, and let a get that begins at g, later
than c, be answered from here with a value of before.

1. The GET that fetched it was carried out before c, and its label is older than that. The tracking connection
   was there before the label was: making one raises the stamp of the whole cache above all labels. So the
   push of this change is behind all pushes that were counted when the label was taken, and once it has been
   read it stamps the slot above the label; the value is gone for good. This closes the race of a fill that
   comes late.
2. So the push hasn't been read at g. Pushes are read at most `POLL_INTERVAL` before any get that is answered
   from here, or `OVERDUE` if another thread is at it. So as a rule the value is no older than that, the way
   through the network, and what of a burst of pushes is still to be read, a slice of it at each get.
3. And if nothing comes through: a server answers in order. A push of a change from before a PING was carried
   out comes before its PONG. (Pushes are written when a turn of the server's event loop ends, so one of the
   same turn may follow the PONG at its heels.) Since the push wasn't read, no PING sent after c is answered:
   the newest one that is was sent before c, and g is at most `LEASE` after it. A server that hangs, a cable
   that is cut and a burst that is too large are all bounded by that, with no clock but our own.
4. When the answer comes late, trust comes back without loss: the same connection has told everything in
   order. A new connection starts with nothing, by 1.

Between two threads. One polls at a time. The others go on for `OVERDUE` with what is known, and then wait for
it: among threads that never wait for anything, one that reads a socket may get the interpreter back late.
Whoever finds the lease over ends the trust, before it polls and before the others are told that it does: else
they would go on with what is known while it reads, in a process that was stopped too. Labels are read without
a lock: pushes are counted before they are stamped, but after they have arrived, so a label taken in between
is from before a GET that sees these changes. Stamps are only raised under a lock: two threads at the same
slot might leave the lower one.

During an outage nothing here is valid. But while the stamp of its slot and `_whole` are no higher than its
label, what was kept is what the servers had last, as far as is known: `held`. That is enough for those who
want something stale rather than nothing. So stamps outlive a connection, and what arrived before it was lost
is read to the end.

What it does not promise. A clock that stands still while the machine sleeps extends the lease by as much, up
to the first poll. A server that forgets what it has acknowledged, as one that is replaced by a replica that
lags behind may do, brings an older value back to all. And where a server becomes another one's replica and
closes no connections, or a slot of a Cluster moves to a server that had none, the new one is only found with
the first key that has to be asked for: after `MOST_SECONDS` at the latest.
"""

from __future__ import annotations

import logging
import os
from asyncio import get_running_loop
from collections.abc import Callable, Iterable
from threading import Lock, Thread
from time import monotonic, sleep
from typing import Any, Final

from quickcache_core.entry import MISSING
from quickcache_core.errors import InvalidKey, KeyNotFound
from quickcache_core.serializer.isolation import Frozen
from quickcache_core.store.base import ABSENT
from quickcache_core.store.near import WHOLE, NearEntry, NearStore
from quickcache_core.store.redis.pushes import WORDS
from quickcache_core.store.redis.tracking import Connector, Lost, Servers, Tracking

logger = logging.getLogger(__name__)

POLL_INTERVAL: Final = 0.001
"""Seconds that a value may be answered from here without a look at what servers have told since."""
OVERDUE: Final = 0.005
"""Seconds that others go on with what is known while a thread polls, which may wait for the interpreter."""
MOST_SECONDS: Final = 60.0
"""No value is kept longer, whatever its own deadline."""
UNTRUSTED: Final = 2**63
"""Stamp of the whole cache while nothing here is valid. No label is as high."""

_LONGEST_WAIT: Final = 0.02
"""Seconds for which they wait for it then."""
_TEND_PAUSES: Final = (0.0005, 0.002, 0.01, 0.04)
_TEND_SLICES: Final = 1000
"""Reads in a row when a process that rests catches up."""


class CappedNearEntry(NearEntry):
    """One that has to be read again at its deadline: that isn't the end of what the server has."""

    __slots__ = ()


class TrackedNear(NearStore):
    """A `NearStore` that servers keep up to date. See the module for why its answers are right.

    `get` never waits: once in a millisecond it reads what servers have sent. Only making a connection takes
    time, when the first one is made or one was lost: the thread that comes by does it, within the timeouts of
    the client, or a thread of its own does, if an event loop runs in this one.

    Any thread may use it, and a child after a fork.
    """

    __slots__ = (
        "_client",
        "_connector",
        "_counter",
        "_has_written",
        "_heirs",
        "_is_real_time",
        "_pid",
        "_polled",
        "_polling",
        "_stamping",
        "_tracking",
        "_trusted_until",
        "_whole",
        "next_poll",
    )

    def __init__(
        self,
        client: Servers,
        prefix: bytes,
        generation_key: bytes,
        now: Callable[[], float],
        limit: int,
        behind: Callable[[Any, Any], Any],
        closer: Callable[[str, Any, Any], Any],
    ) -> None:
        super().__init__(now, limit, behind, closer)
        self._client = client
        self._connector = Connector(client, prefix, generation_key)
        self._is_real_time = now is monotonic
        """If not, time is turned by hand, and each get polls."""
        self._counter = 1
        self._whole = 1
        """The stamp of the whole cache while it is trusted."""
        # A list: a third of an index into an array is to make an int.
        self.stamps = [0] * WORDS
        self.stamps[WHOLE] = UNTRUSTED
        self.references = bytearray(WORDS)
        self._tracking: Tracking | None = None
        self._trusted_until = float("-inf")
        self._has_written = False
        """Whether there is news to come of one's own."""
        self._pid = os.getpid()
        self._heirs: dict[int, object] = {}
        self._polled = float("-inf")
        """When the last poll that is over began."""
        self._polling = Lock()
        self._stamping = Lock()
        self.next_poll = float("-inf")

    # Reading

    def get(self, key: str, default: Any = MISSING) -> Any:
        """The live value under `key`; errors as with `table.Table.get`."""
        now = self._now
        time = now()
        if time >= self.next_poll:
            self.poll(time)
        try:
            entry = self.young.get(key)
        except TypeError:
            raise InvalidKey(key) from None
        if entry is not None:
            stamps = self.stamps
            label = entry.label
            if stamps[entry.slot] <= label and stamps[WHOLE] <= label:
                if time >= entry.deadline:
                    return self.past(key, entry, default)
                value = entry.value
                if value is ABSENT:
                    self.misses += 1
                    if default is MISSING:
                        raise KeyNotFound(key)
                    return default
                self.hits += 1
                return value.load(value.data) if value.__class__ is Frozen else value
        behind = self._behind
        return behind(key, default)

    def at_hand(self, key: str) -> Any:
        """As `Store.at_hand`."""
        time = self._now()
        if time >= self.next_poll:
            self.poll(time)
        entry = self.young.get(key)
        if entry is None or entry.value is ABSENT or time >= entry.deadline:
            return ABSENT
        stamps, label = self.stamps, entry.label
        if stamps[entry.slot] > label or stamps[WHOLE] > label:
            return ABSENT
        return self.hit(entry)

    def get_many(self, keys: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
        """As `NearStore.get_many`."""
        self.catch_up()
        return super().get_many(keys)

    def valid(self, key: str) -> NearEntry | None:
        """As `NearStore.valid`."""
        self.catch_up()
        return super().valid(key)

    def holds(self, label: int, *slots: int) -> bool:
        """Whether what was read with that label, of keys of these slots, is what the servers have."""
        self.catch_up()
        stamps = self.stamps
        return stamps[WHOLE] <= label and all(stamps[slot] <= label for slot in slots)

    def held(self, label: int, *slots: int) -> bool:
        """Whether `holds` was so when the servers were last heard of: no change by this process is known, and
        none that they told of. For when nobody can be asked.
        """
        self.catch_up()
        tracking = self._tracking
        if tracking is not None and tracking.more:
            # It may be in what they told and nobody has read yet.
            return False
        stamps = self.stamps
        return self._whole <= label and all(stamps[slot] <= label for slot in slots)

    def entry(self, value: Any, label: int, slot: int, deadline: float) -> NearEntry:
        """What to keep of a plain entry that ends at its deadline. Seconds by the clock of this near
        store."""
        latest = self._now() + MOST_SECONDS
        if deadline <= latest:
            return NearEntry(value, label, slot, deadline)
        return CappedNearEntry(value, label, slot, latest)

    # Labels and stamps

    def label(self) -> int:
        """To be taken before the command is sent whose result is to be kept; 0: it can't be.

        What has arrived is read first if that is due, and the news of one's own last write in any case. What
        else there may be to read only makes the label older than it need be.
        """
        time = monotonic()
        if time >= self.next_poll or self._has_written:
            self.poll(time)
        counter = self._counter
        return counter if self.stamps[WHOLE] != UNTRUSTED else 0

    def wrote(self, slot: int) -> None:
        """After an own write was answered: what is kept of that slot is out of date."""
        stamping = self._stamping
        if not stamping.acquire(False):
            if self._pid != os.getpid():
                # Who has it is a thread of the parent.
                self._inherit()
                stamping = self._stamping
            stamping.acquire()
        try:
            self._stamp((slot,))
            self._has_written = True
        finally:
            stamping.release()

    def _stamp(self, slots: Iterable[int]) -> None:
        """Under the lock."""
        stamps = self.stamps
        trust = stamps[WHOLE]
        # Counted first: see the module.
        self._counter = count = self._counter + 1
        for slot in slots:
            stamps[slot] = count
        if stamps[WHOLE] == count:
            self._whole = count
            stamps[WHOLE] = max(count, trust)

    # Hearing of changes

    def poll(self, time: float) -> None:
        """Read what servers have sent, and see to it that they do. `time`: monotonic seconds."""
        if not self._is_real_time:
            time = monotonic()
        if time >= self._trusted_until and self.stamps[WHOLE] != UNTRUSTED:
            # Before the others are told that they needn't look: the reading may take its time.
            self._end_trust(time)
        if self._is_real_time:
            self.next_poll = time + POLL_INTERVAL
        polling = self._polling
        if not polling.acquire(False) and not self._await(polling, time):
            return
        is_handed_on = False
        try:
            if self._pid != os.getpid():
                self._inherit(polling)
            elif not self._read(time) and self._connector.is_due(time):
                is_handed_on = self._connect_somewhere(polling)
        except BaseException:
            # A signal's, or gevent's: what was read may not have been counted.
            with self._stamping:
                self._stamp((WHOLE,))
            self._lose()
            raise
        finally:
            if not is_handed_on:
                polling.release()

    def catch_up(self) -> None:
        """Read what servers have sent, if that is due."""
        time = self._now()
        if time >= self.next_poll:
            self.poll(time)

    def tend(self) -> None:
        """For a thread that comes by about once a second, whether or not there are gets.

        A process that rests keeps its lease that way. And what it is told doesn't pile up in the servers,
        where nothing limits it. Waits some hundredths of a second at most for an answer.
        """
        slices = _TEND_SLICES
        for pause in _TEND_PAUSES:
            self.poll(monotonic())
            while (tracking := self._tracking) is not None and tracking.more and slices:
                slices -= 1
                self.poll(monotonic())
            if tracking is None or self.stamps[WHOLE] != UNTRUSTED:
                return
            sleep(pause)

    def close(self) -> None:
        """Let go of the connections. A later get makes new ones."""
        # Not under the lock of those who poll: a greenlet may have it that connects just now. It finds out.
        self._lose()

    def _end_trust(self, time: float) -> None:
        """The lease is over, unless another thread has just read that it isn't."""
        if self._pid != os.getpid():
            self._inherit()
            return
        with self._stamping:
            if time >= self._trusted_until:
                self.stamps[WHOLE] = UNTRUSTED

    def _await(self, polling: Any, time: float) -> bool:
        """While another thread polls: whether it took so long that this one, which has the lock, has to."""
        if self._pid != os.getpid():
            self._inherit()
            return False
        # Threads that wait leave the interpreter to the one that they wait for. While nothing is trusted that
        # may be one that connects.
        if time - self._polled < OVERDUE or self.stamps[WHOLE] == UNTRUSTED:
            return False
        if not polling.acquire(timeout=_LONGEST_WAIT):
            return False
        if self._polled > time:
            polling.release()
            return False
        return True

    def _read(self, time: float) -> bool:
        """Whether there are connections, and they work."""
        self._has_written = False
        tracking = self._tracking
        if tracking is None:
            return False
        if tracking.epoch is not self._client.epoch:
            self._part_from(tracking)
            return False
        try:
            slots = tracking.read(time)
        except Lost as error:
            logger.debug("No longer told of changes: %s", error)
            self._part_from(tracking)
            return False
        self._polled = time
        with self._stamping:
            if slots:
                self._stamp(slots)
            if self._tracking is not tracking:
                # Closed meanwhile.
                return True
            self._trusted_until = until = tracking.trusted_until
            # By what time it is now: reading may have taken long, if the process was stopped, and others may
            # have ended the trust meanwhile.
            is_trusted = monotonic() < until
            self.stamps[WHOLE] = self._whole if is_trusted else UNTRUSTED
        if tracking.more or not is_trusted:
            # Something is to come, if it isn't there already.
            self.next_poll = float("-inf")
        return True

    # Connecting; by who has the lock `_polling`

    def _connect_somewhere(self, polling: Any) -> bool:
        """Whether another thread does it, and will release the lock."""
        try:
            get_running_loop()
        except RuntimeError:
            self._connect()
            return False
        thread = Thread(target=self._connect_aside, args=(polling,), name="quickcache-tracking", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there can't be more threads, or the interpreter ends
            self._connector.put_off()
            return False
        return True

    def _connect_aside(self, polling: Any) -> None:
        try:
            self._connect()
        finally:
            polling.release()

    def _connect(self) -> None:
        tracking = self._connector.connect()
        if tracking is None:
            return
        with self._stamping:
            self._tracking = tracking
            # What was kept before can't be told from what changed in between.
            self._stamp((WHOLE,))
            self._trusted_until = tracking.trusted_until
            self.stamps[WHOLE] = self._whole

    def _part_from(self, tracking: Tracking) -> None:
        """By who has the lock `_polling`. What was told before must not come back while nobody can be asked,
        see `held`.
        """
        with self._stamping:
            self.stamps[WHOLE] = UNTRUSTED
        slots = tracking.rest()
        with self._stamping:
            if slots:
                self._stamp(slots)
        self._lose()

    def _lose(self) -> None:
        with self._stamping:
            self.stamps[WHOLE] = UNTRUSTED
            self._trusted_until = float("-inf")
            tracking, self._tracking = self._tracking, None
        if tracking is not None:
            tracking.close()

    def _inherit(self, polling: Any = None) -> None:
        """In a child: start anew. The connections are the parent's, and so may be who has the locks;
        `polling` is the caller's own.

        Not by a fork hook: servers that fork in C don't run it.
        """
        self.stamps[WHOLE] = UNTRUSTED
        mine, pid = object(), os.getpid()
        if self._heirs.setdefault(pid, mine) is not mine:
            # Another thread does it.
            return
        self._heirs = {pid: mine}
        tracking, self._tracking = self._tracking, None
        self._trusted_until = self.next_poll = float("-inf")
        self._connector = self._connector.anew()
        self._stamping = Lock()
        if polling is None:
            self._polling = Lock()
        self._pid = pid
        if tracking is not None:
            tracking.close()
