"""The shop under gunicorn, asked over HTTP."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from example_projects.gunicorn_process import Answer, GunicornProcess, Visitor
from tests.examples.serving import serving

WORKERS = 4

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shop")


@pytest.fixture(scope="module")
def shop(folder: Path) -> Iterator[GunicornProcess]:
    with serving("django_shop", "--workers", str(WORKERS), folder=folder) as server:
        yield server


@pytest.fixture
def visitor(shop: GunicornProcess) -> Visitor:
    visitor = shop.visitor()
    visitor.get("/")
    return visitor


def sql(folder: Path, statement: str, *parameters: Any) -> list[Any]:
    """What the database itself says, past Django and all caches."""
    with closing(sqlite3.connect(folder / "shop.sqlite3", timeout=10)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


def by_worker(answers: list[Answer]) -> dict[int, list[Answer]]:
    found: dict[int, list[Answer]] = defaultdict(list)
    for answer in answers:
        found[answer.worker].append(answer)
    return found


def test_a_new_page_is_one_miss_for_all_workers(shop: GunicornProcess, visitor: Visitor) -> None:
    """The first worker makes the page, and all give out the same bytes."""
    buy_product_of_the_day(visitor)
    answers = shop.answers_of_all(WORKERS, lambda: visitor.get("/catalogue/"), each=3)
    assert_made_by_the_first("catalogue", answers)
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.parametrize("part", ["product", "shelf"])
def test_a_new_part_of_a_page_is_one_miss_for_all_workers(
    shop: GunicornProcess, visitor: Visitor, part: str
) -> None:
    """The same for an object by `cache.get` and a piece of a template by `{% cache %}`."""
    buy_product_of_the_day(visitor)
    answers = shop.answers_of_all(WORKERS, lambda: visitor.get("/"), each=3)
    assert_made_by_the_first(part, answers)
    assert all(shown_stock(answer) == shown_stock(answers[0]) for answer in answers)


def test_a_value_that_is_only_in_the_cache_is_every_worker_s(shop: GunicornProcess, visitor: Visitor) -> None:
    """Whoever wrote it last, all show the last one."""
    for text in ("Closed on Sundays", "Open on Sundays"):
        written = visitor.post("/notice/", text=text)
        assert written.headers["Location"] == "/"
        for answer in shop.answers_of_all(WORKERS, lambda: visitor.get("/"), each=2):
            assert (answer.data("notice"), int(answer.data("notice-by"))) == (text, written.worker)


def test_started_again(tmp_path: Path) -> None:
    """What the first run has stored, the workers of the second have at once."""
    with serving("django_shop", "--workers", "2", folder=tmp_path) as shop:
        bestsellers = shown_stock(shop.visitor().get("/"))
    with serving("django_shop", "--workers", "2", folder=tmp_path) as shop:
        for answer in shop.answers_of_all(2, lambda: shop.visitor().get("/")):
            assert answer.parts["product"].outcome == answer.parts["shelf"].outcome == "hit"
            assert shown_stock(answer) == bestsellers


def test_cached_pages_say_what_the_database_says(
    shop: GunicornProcess, folder: Path, visitor: Visitor
) -> None:
    """The hit has the right content, not only the same as before."""
    for _ in range(2):
        catalogue = shop.answers_of_all(WORKERS, lambda: visitor.get("/catalogue/"), each=2)
    stock = dict(sql(folder, "SELECT name, stock FROM catalogue_product"))
    sales = "catalogue_sale JOIN catalogue_product ON catalogue_product.id = product_id"
    sold = dict(sql(folder, f"SELECT name, sum(quantity) FROM {sales} GROUP BY name"))
    for answer in catalogue:
        rows = re.findall(r"<td>([^<]+)</td>" + r'<td class="n">(\d+)</td>\s*' * 4, answer.text)
        assert len(rows) == 6 * 5
        for name, units, _, _, left in rows:
            assert (int(units), int(left)) == (sold[name], stock[name])


def test_nothing_old_is_shown_after_a_purchase(shop: GunicornProcess, folder: Path, visitor: Visitor) -> None:
    """All pages of all workers, filled before the purchase, show the new stock after it."""
    shop.answers_of_all(WORKERS, lambda: visitor.get("/"), each=2)
    shop.answers_of_all(WORKERS, lambda: visitor.get("/catalogue/"), each=2)
    for _ in range(3):
        name = buy_product_of_the_day(visitor)
        [(left,)] = sql(folder, "SELECT stock FROM catalogue_product WHERE name = ?", name)
        for answer in shop.answers_of_all(WORKERS, lambda: visitor.get("/"), each=2):
            assert (answer.data("name"), answer.data("left")) == (name, str(left))
            assert shown_stock(answer)[name] == left
        for answer in shop.answers_of_all(WORKERS, lambda: visitor.get("/catalogue/"), each=2):
            assert re.search(rf"<td>{name}</td>.*?>{left}</td>\s*</tr>", answer.text, re.DOTALL)


def test_a_page_follows_the_rows(shop: GunicornProcess, folder: Path, visitor: Visitor) -> None:
    """`cached_view` with the tags of models: made once for all workers, and gone with the next purchase."""
    path = category_of_the_day(visitor.get("/"))
    for _ in range(2):
        name = buy_product_of_the_day(visitor)
        first, *others = shop.answers_of_all(WORKERS, lambda: visitor.get(path), each=2)
        assert [answer.headers["X-Cache"] for answer in (first, *others)] == ["MISS", *["HIT"] * len(others)]
        assert [answer.parts["category"].outcome for answer in (first, others[0])] == ["miss", "hit"]
        assert {answer.text for answer in others} == {first.text}
        [(left,)] = sql(folder, "SELECT stock FROM catalogue_product WHERE name = ?", name)
        assert re.search(rf"<td>{name}</td>" + r'<td class="n">(\d+)</td>' * 2, first.text)[2] == str(left)


def test_a_browser_that_has_the_page(visitor: Visitor) -> None:
    """It is told so."""
    path = category_of_the_day(visitor.get("/"))
    answer = visitor.get(path, {"If-None-Match": visitor.get(path).headers["ETag"]})
    assert (answer.status, answer.text, answer.headers["X-Cache"]) == (304, "", "HIT")


def test_a_session_survives_over_the_workers(shop: GunicornProcess) -> None:
    """Every worker knows the visitor, whichever one greeted them, and doesn't mix them up with another."""
    anna, ben = shop.visitor(), shop.visitor()
    assert anna.get("/").parts["session"].outcome == "new"
    ben.get("/")
    buy_product_of_the_day(anna)
    of_anna = shop.answers_of_all(WORKERS, lambda: anna.get("/"), each=3)
    of_ben = shop.answers_of_all(WORKERS, lambda: ben.get("/"), each=3)
    [name_of_anna] = {answer.data("visitor") for answer in of_anna}
    [name_of_ben] = {answer.data("visitor") for answer in of_ben}
    assert name_of_anna != name_of_ben
    assert {answer.data("purchases") for answer in of_anna} == {"1"}
    assert {answer.data("purchases") for answer in of_ben} == {"0"}
    assert {answer.parts["session"].outcome for answer in of_anna} == {"hit"}


def test_many_visitors_at_once(shop: GunicornProcess, folder: Path, visitor: Visitor) -> None:
    """Purchases and page views from eight threads: each sale counts once, and every worker shows the sum."""
    home = visitor.get("/")
    product, left = home.data("product"), int(home.data("left"))

    def visit(_: int) -> None:
        visitor = shop.visitor()
        visitor.get("/")
        for _ in range(3):
            assert visitor.post(f"/buy/{product}/").headers["Location"] == "/?purchase=done"
            assert visitor.get("/").status == visitor.get("/catalogue/").status == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(8)))
    assert sql(folder, "SELECT stock FROM catalogue_product WHERE id = ?", product) == [(left - 24,)]
    for answer in shop.answers_of_all(WORKERS, lambda: visitor.get("/")):
        assert (answer.data("product"), answer.data("left")) == (product, str(left - 24))


def test_what_is_sold_out_is_not_sold(folder: Path, visitor: Visitor) -> None:
    [(product,)] = sql(folder, "SELECT id FROM catalogue_product ORDER BY stock LIMIT 1")
    sql(folder, "UPDATE catalogue_product SET stock = 0 WHERE id = ?", product)
    assert visitor.post(f"/buy/{product}/").headers["Location"] == "/?purchase=sold-out"
    assert sql(folder, "SELECT stock FROM catalogue_product WHERE id = ?", product) == [(0,)]


def test_an_unknown_product_is_not_found(visitor: Visitor) -> None:
    assert visitor.post("/buy/987654321/").status == 404


def test_figures_of_each_worker(shop: GunicornProcess, visitor: Visitor) -> None:
    """A worker reports itself: each request for the page adds a look-up or more to the one that answered."""
    figures = {}
    for answer in shop.answers_of_all(WORKERS, lambda: visitor.get("/worker/")):
        figures[answer.worker] = json.loads(answer.text)
    for pid, before in figures.items():
        assert before["pid"] == pid
        assert before["hits"] + before["misses"] == before["gets"]
        assert 0 < before["entries"] <= before["max_entries"]
    asked = by_worker(shop.answers_of_all(WORKERS, lambda: visitor.get("/catalogue/")))
    for answer in shop.answers_of_all(WORKERS, lambda: visitor.get("/worker/")):
        gets = json.loads(answer.text)["gets"] - figures[answer.worker]["gets"]
        assert gets >= len(asked[answer.worker])


def test_one_query_for_all_who_come_at_once(shop: GunicornProcess, visitor: Visitor) -> None:
    """Two hundred requests for a page that nobody has made yet: one slow query, over all workers."""
    buy_product_of_the_day(visitor)
    # The home page has made a query of its own necessary, behind it: not to be counted here.
    while (turnover := json.loads(visitor.get("/turnover/").text))["age"] > 2:
        assert turnover["euros"] > 0
    before = turnover["slow_queries"]
    together = threading.Barrier(200)

    def ask(_: int) -> Answer:
        together.wait(60)
        return visitor.get("/catalogue/")

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, range(200)))
    assert {answer.status for answer in answers} == {200}
    assert len(by_worker(answers)) > 1
    assert json.loads(visitor.get("/worker/").text)["slow_queries"] == before + 1


def test_the_database_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages go on being served by all workers, with the old numbers; what needs the database says so."""
    monkeypatch.setenv("SHOP_KEPT_FOR", "1")
    with serving("django_shop", "--workers", "2", folder=tmp_path) as shop:
        visitor = shop.visitor()
        home = visitor.get("/")
        catalogue = visitor.get("/catalogue/")
        assert (home.data("database"), home.data("stale")) == ("on", "0")

        assert visitor.post("/database/", state="off").status == 302
        assert not (tmp_path / "shop.sqlite3").exists()
        # Until what was made before has been out of date for all of them.
        for _ in range(200):
            again = [visitor.get("/"), *shop.answers_of_all(2, lambda: visitor.get("/catalogue/"))]
            assert {answer.status for answer in again} == {200}
            if int(again[0].data("stale")) >= 10:
                break
        assert int(again[0].data("stale")) >= 10
        assert again[0].data("database") == "off"
        assert shown_stock(again[0]) == shown_stock(home)
        for answer in again[1:]:
            assert re.findall(r'class="n">(\d+)', answer.text) == re.findall(
                r'class="n">(\d+)', catalogue.text
            )
        assert shop.visitor().get("/").status == 200
        bought = visitor.post(f"/buy/{home.data('product')}/")
        assert bought.headers["Location"] == "/?purchase=off"

        visitor.post("/database/", state="on")
        name = buy_product_of_the_day(visitor)
        [(left,)] = sql(tmp_path, "SELECT stock FROM catalogue_product WHERE name = ?", name)
        for answer in shop.answers_of_all(2, lambda: visitor.get("/")):
            assert (answer.data("name"), answer.data("left")) == (name, str(left))


def test_loaded_before_the_fork(tmp_path: Path) -> None:
    """With --preload the shop and its cache are made in gunicorn's master and used in its children."""
    with serving("django_shop", "--workers", "2", "--preload", folder=tmp_path) as shop:
        visitor = shop.visitor()
        answers = shop.answers_of_all(2, lambda: visitor.get("/catalogue/"), each=2)
        for answers_of_one in by_worker(answers).values():
            assert answers_of_one[-1].parts["catalogue"].outcome == "hit"


def category_of_the_day(home: Answer) -> str:
    [path] = re.findall(r'href="(/category/\d+/)"', home.text)
    return str(path)


def buy_product_of_the_day(visitor: Visitor) -> str:
    home = visitor.get("/")
    bought = visitor.post(f"/buy/{home.data('product')}/")
    assert bought.headers["Location"] == "/?purchase=done"
    return home.data("name")


def assert_made_by_the_first(part: str, answers: list[Answer]) -> None:
    outcomes = [answer.parts[part].outcome for answer in answers]
    assert outcomes == ["miss", *["hit"] * (len(answers) - 1)]


def shown_stock(answer: Answer) -> dict[str, int]:
    """Product and pieces left, as in the shelf of bestsellers."""
    rows = re.findall(r'<td>([^<]+)</td><td class="n">\d+</td><td class="n">(\d+)</td>', answer.text)
    assert len(rows) == 6
    return {name: int(left) for name, left in rows}
