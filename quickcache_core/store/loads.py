"""Which keys are being loaded, so that a write can tell the loads of its key that they are overtaken."""

from __future__ import annotations

from functools import partial
from weakref import ref


class Watch:
    """What the tokens of one key have in common until a write ends it."""

    __slots__ = ("__weakref__",)


class Token:
    """Held by who loads a value. Whoever drops it need not say so."""

    __slots__ = ("label", "watch")

    def __init__(self, watch: Watch, label: int) -> None:
        self.watch = watch
        self.label = label
        """See `rich.Tags`: what was invalidated after the load began has a higher number."""


Loads = dict[str, "ref[Watch]"]
"""By key: the watch that the tokens of its loads hold. The last one that is dropped takes it along; a write
takes it out, which is all that a write has to do about loads. A dictionary of its own for each population:
who clears the store overtakes all loads by going on with another one.

Not a WeakValueDictionary, for that takes as long to tell that it is empty as a write may take altogether.
"""


def begin(loads: Loads, key: str, label: int) -> Token:
    """Called under the store's lock."""
    known = loads.get(key)
    watch = None if known is None else known()
    if watch is None:
        watch = Watch()
        loads[key] = ref(watch, partial(_forget, loads, key))
    return Token(watch, label)


def is_overtaken(loads: Loads, key: str, token: Token) -> bool:
    known = loads.get(key)
    return known is None or known() is not token.watch


def overtake(loads: Loads, prefix: str) -> None:
    """Those of all keys that begin so."""
    # A copy: whoever drops a token takes its key out, without a lock.
    for key in list(loads):
        if key.startswith(prefix):
            loads.pop(key, None)


def _forget(loads: Loads, key: str, dead: ref[Watch]) -> None:
    # Runs wherever the last token is dropped, and so takes no lock. Should another load of the key begin
    # between the two steps, it is taken for overtaken: a value too few is stored, never an outdated one.
    if loads.get(key) is dead:
        loads.pop(key, None)
