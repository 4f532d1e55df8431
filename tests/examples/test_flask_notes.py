"""The notes under gunicorn, asked over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from example_projects.gunicorn_process import Answer, GunicornProcess, Visitor
from tests.examples.serving import serving

WORKERS = 4
PARTS = {"rendered", "statistics", "related"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GunicornProcess]:
    with serving("flask_notes", folder=tmp_path_factory.mktemp("notes")) as server:
        yield server


@pytest.fixture
def visitor(server: GunicornProcess) -> Visitor:
    return server.visitor()


def outcomes(answer: Answer) -> set[str]:
    assert answer.status == 200
    return {part.outcome for part in answer.parts.values()}


def body(answer: Answer) -> str:
    """The page without its badges and figures, which count."""
    return re.sub(
        r'<span class="badge.*?</span>|<p class="soft">\s*Worker.*?</p>', "", answer.text, flags=re.DOTALL
    )


def add(visitor: Visitor, title: str, text: str) -> str:
    """Returns the path of the new note."""
    answer = visitor.post("/notes", title=title, text=text)
    assert answer.status == 302
    return answer.headers["Location"]


def test_the_overview_is_a_miss_once_for_all_workers(server: GunicornProcess, visitor: Visitor) -> None:
    add(visitor, "Makes the overview a miss", "text")
    first, *others = server.answers_of_all(WORKERS, lambda: visitor.get("/"), each=2)
    assert outcomes(first) == {"miss"}
    for other in others:
        assert outcomes(other) == {"hit"}
        assert body(other) == body(first)
    assert "Makes the overview a miss" in first.text


def test_the_parts_of_a_note_are_a_miss_once_for_all_workers(
    server: GunicornProcess, visitor: Visitor
) -> None:
    path = add(visitor, "A note", "The mainsail and the rudder. The mainsail again.")
    first, *others = server.answers_of_all(WORKERS, lambda: visitor.get(path), each=2)
    assert outcomes(first) == {"miss"}
    for other in others:
        assert other.parts.keys() == first.parts.keys() == PARTS
        assert outcomes(other) == {"hit"}
        assert body(other) == body(first)


def test_a_changed_note_is_shown_as_it_is_now(visitor: Visitor) -> None:
    """Title, text and statistics, and the overview with them."""
    path = add(visitor, "Before", "one two three")
    for page in (path, "/", path, "/"):
        visitor.get(page)
    visitor.post(path, title="Afterwards", text="one **two** three four")
    note, overview = visitor.get(path), visitor.get("/")
    assert "one <strong>two</strong> three four" in note.text
    assert re.search(r"<td>words</td><td class=\"n\">4</td>", note.text)
    assert "Before" not in note.text + overview.text
    assert "Afterwards" in overview.text


def test_the_parts_of_other_notes_are_kept(visitor: Visitor) -> None:
    """Only what depends on the changed note is forgotten: of another note, what it is related to."""
    path, other = add(visitor, "This", "text"), add(visitor, "Other", "text")
    visitor.get(other)
    visitor.post(path, title="This", text="another text")
    parts = visitor.get(other).parts
    assert {name for name, part in parts.items() if part.outcome == "miss"} == {"related"}


def test_a_page_to_be_printed_is_made_once_for_all_workers(server: GunicornProcess, visitor: Visitor) -> None:
    """And again when its note has changed, and not when another one has."""
    path, other = add(visitor, "To print", "one"), add(visitor, "Another", "text")
    for text in ("one", "two"):
        visitor.post(path, title="To print", text=text)
        first, *others = server.answers_of_all(WORKERS, lambda: visitor.get(f"{path}/print"), each=2)
        assert [answer.headers["X-Cache"] for answer in (first, *others)] == ["MISS", *["HIT"] * len(others)]
        assert f"<p>{text}</p>" in first.text
        assert {answer.text for answer in others} == {first.text}
    visitor.post(other, title="Another", text="another text")
    assert visitor.get(f"{path}/print").headers["X-Cache"] == "HIT"
    visitor.post(f"{path}/delete")
    assert visitor.get(f"{path}/print").status == 404


def test_a_program_that_asks_for_all_notes_again_and_again(visitor: Visitor) -> None:
    """Until a note changes it is told that it has them."""
    path = add(visitor, "Exported", "text")
    first = visitor.get("/notes.json")
    known = {"If-None-Match": first.headers["ETag"]}
    again = visitor.get("/notes.json", known)
    assert (again.status, again.text, again.headers["X-Cache"]) == (304, "", "HIT")
    visitor.post(path, title="Exported", text="changed")
    after = visitor.get("/notes.json", known)
    assert (after.status, after.headers["X-Cache"]) == (200, "MISS")
    assert json.loads(after.text)[0] == {
        "id": json.loads(first.text)[0]["id"],
        "title": "Exported",
        "text": "changed",
    }


def test_a_deleted_note_is_gone_everywhere(visitor: Visitor) -> None:
    """From its own page, from the overview, and from the notes that it was related to."""
    text = "zeppelin gondola zeppelin airship gondola"
    path, other = add(visitor, "Zeppelin one", text), add(visitor, "Zeppelin two", text)
    assert "Zeppelin one" in visitor.get(other).text
    assert "Zeppelin one" in visitor.get("/").text
    assert visitor.post(f"{path}/delete").status == 302
    assert visitor.get(path).status == 404
    assert "Zeppelin one" not in visitor.get(other).text + visitor.get("/").text


def test_html_in_a_note_is_shown_as_text(visitor: Visitor) -> None:
    path = add(visitor, "<script>alert(1)</script>", "<script>alert(2)</script> **bold**")
    for _ in range(2):
        for page in (path, "/"):
            assert "<script>" not in visitor.get(page).text


def test_a_note_without_text_is_refused(visitor: Visitor) -> None:
    assert visitor.post("/notes", title="Empty", text="  ").status == 400


def test_many_visitors_at_once(server: GunicornProcess) -> None:
    """Four workers share one cache: what one of them has changed, none shows any more."""

    def visit(number: int) -> None:
        visitor = server.visitor()
        path = add(visitor, f"Thread {number}", "start")
        for turn in range(5):
            visitor.post(path, title=f"Thread {number}", text=f"turn {turn} of {number}")
            assert f"<p>turn {turn} of {number}</p>" in visitor.get(path).text
            assert visitor.get("/").status == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(8)))


def test_figures(visitor: Visitor) -> None:
    answer = visitor.get("/worker")
    figures = json.loads(answer.text)
    assert figures["pid"] == answer.worker
    assert figures["hits"] + figures["misses"] == figures["gets"] > 0
    assert 0 < figures["entries"] <= figures["max_entries"]


def test_loaded_before_the_fork(tmp_path: Path) -> None:
    """With --preload the cache is made in gunicorn's master and used in its children."""
    with serving("flask_notes", "--preload", folder=tmp_path) as server:
        visitor = server.visitor()
        path = add(visitor, "A note", "text")
        assert [outcomes(visitor.get(path)) for _ in range(9)] == [{"miss"}, *[{"hit"}] * 8]
