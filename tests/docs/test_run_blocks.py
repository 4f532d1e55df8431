"""The runner of the documentation's blocks notices what is wrong with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("run_blocks.py")


def run(page: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "page.md").write_text(page, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", RUNNER, "page.md"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def python(code: str) -> str:
    return f"Text\n\n```python\n{code}\n```\n"


@pytest.mark.parametrize(
    "page",
    [
        python("a = 1") + python("a  # 1"),
        python("{'a': 1}['b']  # raises KeyError"),
        python("{'a': 1}['b']  # raises LookupError, as ever"),
        python("print('hello')  # hello"),
        python("print(2 * 2)  # 4"),
        python("1 + 1  # two, of course"),
        python("import asyncio\nawait asyncio.sleep(0, 5)  # 5"),
        python("import pickle\nclass Mine: pass\npickle.loads(pickle.dumps(Mine))"),
        "<!-- not run: needs a server -->\n" + python("open_a_door()").removeprefix("Text\n\n"),
        "```pycon\n>>> 1 + 1\n2\n```\n",
        "* item\n\n  ```python\n  a = 1\n  if a:\n      a\n  ```\n",
        "```text\nnot python\n```\n",
    ],
)
def test_right_pages_pass(page: str, tmp_path: Path) -> None:
    """Code that does what its comments say is accepted."""
    result = run(page, tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (python("a = 1\na  # 2"), "page.md:5: gave 1"),
        (python("1  # True"), "gave 1"),
        (python("{'a': 1}['a']  # raises KeyError"), "KeyError was to be raised"),
        (python("{}['a']  # raises ValueError"), "KeyError: 'a'"),
        (python("print(2 * 2)  # 5"), "printed '4'"),
        (python("a = b"), 'page.md", line 4'),
        (python("json.dumps({})"), "'json' is not defined"),
        (python("import warnings\nwarnings.warn('old', DeprecationWarning)"), "DeprecationWarning"),
        ("<!-- not run: needs a server -->\n```python\nif:\n```\n", "SyntaxError"),
        ("```pycon\n>>> 1 + 1\n3\n```\n", "Expected"),
        ("```json\n{'a': 1}\n```\n", "JSONDecodeError"),
        ("```toml\na = b\n```\n", "TOMLDecodeError"),
        (
            python('CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}'),
            "does not return what was set",
        ),
    ],
)
def test_wrong_pages_fail(page: str, complaint: str, tmp_path: Path) -> None:
    """Code that does something else, or nothing, is refused and its place is named."""
    result = run(page, tmp_path)
    assert result.returncode != 0
    assert complaint in result.stderr


def test_settings_blocks_set_django_up(tmp_path: Path) -> None:
    """After a block with `CACHES` the page can use Django's cache, and a second one replaces the first."""
    first = (
        'CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "a"}}'
    )
    use = "from django.core.cache import cache\ncache.set('a', 1)\ncache.get('a')  # 1"
    second = first.replace('"a"', '"b"')
    result = run(python(first) + python(use) + python(second) + python("cache.get('a')  # None"), tmp_path)
    assert result.returncode == 0, result.stderr
