"""What a cache of whole responses needs, whatever the framework: keys, `Vary`, validators, freshness.

Requests are known by the names of CGI (`HTTP_IF_NONE_MATCH`, `QUERY_STRING`), which WSGI has from there and
Django also uses under ASGI.
"""

from quickcache_core.decorators.place import look_up
from quickcache_core.http.answers import Answer, answer, answer_at_hand, finished
from quickcache_core.http.fragments import Fragments, fragment_key, tags_in
from quickcache_core.http.headers import NO_CONTENT, for_whole_page, has_content
from quickcache_core.http.page import Page, Snapshot, is_page
from quickcache_core.http.pages import Label, Outcome, Pages, Visit
from quickcache_core.http.rules import Rules, form_of, read_rules

__all__ = [
    "NO_CONTENT",
    "Answer",
    "Fragments",
    "Label",
    "Outcome",
    "Page",
    "Pages",
    "Rules",
    "Snapshot",
    "Visit",
    "answer",
    "answer_at_hand",
    "finished",
    "for_whole_page",
    "form_of",
    "fragment_key",
    "has_content",
    "is_page",
    "look_up",
    "read_rules",
    "tags_in",
]
