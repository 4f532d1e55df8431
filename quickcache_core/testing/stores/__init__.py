"""The contract of a store, as tests to inherit."""

from quickcache_core.testing.stores.basis import WIDE, in_threads, raised
from quickcache_core.testing.stores.bounds import BoundContract
from quickcache_core.testing.stores.deadlines import DeadlineContract
from quickcache_core.testing.stores.forms import FormContract
from quickcache_core.testing.stores.listeners import ListenerContract
from quickcache_core.testing.stores.reading import ReadingContract
from quickcache_core.testing.stores.records import RecordContract
from quickcache_core.testing.stores.writing import WritingContract

__all__ = ["WIDE", "StoreContract", "in_threads", "raised"]


class StoreContract(
    ReadingContract,
    DeadlineContract,
    WritingContract,
    FormContract,
    BoundContract,
    RecordContract,
    ListenerContract,
):
    """Derive a test class from this, make the store in `make_store`, and pytest finds the rest.

    Each test begins with an empty store. Values are strings and numbers, except where stored forms matter.
    """
