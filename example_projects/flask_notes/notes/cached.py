"""What is cached, and what must be forgotten when a note changes."""

from __future__ import annotations

from flask import current_app
from flask_caching import Cache

from notes import text
from notes.measuring import missed
from notes.storage import Note, Storage

cache = Cache()

OVERVIEW = "overview"

ALL_NOTES = "notes"
"""The tag of pages that are made of all of them."""


def tag_of(note_id: int) -> str:
    return f"note:{note_id}"


def storage() -> Storage:
    notes: Storage = current_app.extensions["notes"]
    return notes


@cache.cached(timeout=60, key_prefix=OVERVIEW)
def overview() -> dict[str, object]:
    """The same for every visitor and address, so it has one key."""
    missed()
    notes = storage().all()
    return {
        "notes": [(note.id, note.title, len(text.words_of(note.text))) for note in notes],
        "common": text.common_words(note.text for note in notes),
    }


@cache.memoize(timeout=300)
def rendered(note_id: int) -> str:
    missed()
    return text.to_html(_text(note_id))


@cache.memoize(timeout=300)
def statistics(note_id: int) -> dict[str, object]:
    missed()
    return text.statistics_of(_text(note_id))


@cache.memoize(timeout=300)
def related(note_id: int) -> list[tuple[int, str, float]]:
    """Compares the note with all others: the slowest part of the page."""
    missed()
    notes = {note.id: note for note in storage().all()}
    similar = text.most_similar(note_id, {key: note.text for key, note in notes.items()})
    return [(key, notes[key].title, likeness) for key, likeness in similar]


def forget(note_id: int) -> None:
    """Called after the note has been written: who asks from now on computes from what is stored now.

    Not so a thread that has read the old note and stores its result only after this; that one lasts for the
    timeout, so timeouts should be no longer than an old page would be bearable.
    """
    cache.delete(OVERVIEW)
    cache.delete_memoized(rendered, note_id)
    cache.delete_memoized(statistics, note_id)
    # Any note may be related to the one that has changed, so all results go.
    cache.delete_memoized(related)
    # Pages under `cached_view`. The warning above isn't for them: what is being made of the old note at this
    # moment isn't kept.
    cache.cache.invalidate_tags(ALL_NOTES, tag_of(note_id))


def _text(note_id: int) -> str:
    note: Note | None = storage().get(note_id)
    return note.text if note else ""
