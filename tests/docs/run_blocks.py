"""Run the Python blocks of one Markdown file, in order and in one namespace, and hold them to their comments.

Usage: run_blocks.py FILE, in an empty working directory, in a process of its own.

* `cache.get("a")  # 42` must give 42; `# raises KeyNotFound` must raise that; other comments are prose.
* A block directly below `<!-- not run: REASON -->` is compiled only.
* A block that assigns `CACHES` is a Django settings file: Django is set up with its upper-case names, and
  each alias has to store and return a value. `...` in a list stands for what the reader has there already.
* ```pycon blocks are doctests, ```json and ```toml blocks must parse.
* A page that names `localhost:6379` gets a Valkey server of its own, wherever that listens.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import json
import re
import sys
import tokenize
import tomllib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]*)(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```\s*$",
    re.MULTILINE | re.DOTALL,
)
NOT_RUN = re.compile(r"<!--\s*not run:\s*(?P<reason>.*?)\s*-->\s*\Z", re.DOTALL)
SERVER = "localhost:6379"
RAISES = re.compile(r"raises (?P<name>\w+)")


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is where its code starts in the file, counted from 1."""

    language: str
    code: str
    line: int
    not_run: str | None


def blocks(text: str) -> Iterator[Block]:
    for match in BLOCK.finditer(text):
        above = NOT_RUN.search(text[: match.start()])
        indent = match["indent"]
        code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start("code")) + 1
        yield Block(match["language"].lower(), code, line, above["reason"] if above else None)


class Mismatch(AssertionError):
    """A block does not do what the page says."""


def comments(code: str) -> dict[int, str]:
    """Comment text by line number in `code`."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def literal(text: str) -> tuple[bool, Any]:
    try:
        return True, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False, None


def evaluate(statement: ast.stmt, namespace: dict[str, Any], where: str) -> Any:
    """Execute one statement and return its value if it is an expression; `await` works at the top level."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    if isinstance(statement, ast.Expr):
        code = compile(ast.Expression(statement.value), where, "eval", flags)
    else:
        code = compile(ast.Module([statement], []), where, "exec", flags)
    value = eval(code, namespace)
    return asyncio.run(value) if code.co_flags & inspect.CO_COROUTINE else value


def run_statement(statement: ast.stmt, comment: str, namespace: dict[str, Any], where: str) -> None:
    """Execute one statement; what it gives, prints or raises must agree with an exact comment."""
    place = f"{where}:{statement.lineno}"
    is_simple = isinstance(statement, ast.Expr | ast.Assign | ast.AugAssign | ast.AnnAssign)
    expected_error = RAISES.search(comment) if is_simple else None
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            value = evaluate(statement, namespace, where)
    except Exception as error:
        if expected_error is None or expected_error["name"] not in {
            cls.__name__ for cls in type(error).__mro__
        }:
            raise
        return
    if expected_error is not None:
        raise Mismatch(f"{place}: {expected_error['name']} was to be raised, nothing was")
    is_literal, expected = literal(comment)
    if not (isinstance(statement, ast.Expr) and is_literal):
        return
    if output := printed.getvalue().strip():
        if output not in (comment, str(expected)):
            raise Mismatch(f"{place}: printed {output!r}, the comment says {comment!r}")
    elif value != expected or type(value) is not type(expected):
        raise Mismatch(f"{place}: gave {value!r}, the comment says {comment!r}")


def run_python(block: Block, namespace: dict[str, Any], where: str) -> None:
    padded = "\n" * (block.line - 1) + block.code
    tree = ast.parse(padded, where)
    if block.not_run is not None:
        return
    said = comments(padded)
    for statement in tree.body:
        run_statement(statement, said.get(statement.end_lineno or 0, ""), namespace, where)
    if "CACHES" in assigned_names(tree):
        use_django_settings(namespace)


def assigned_names(tree: ast.Module) -> set[str]:
    targets: list[ast.expr] = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}


def use_django_settings(namespace: dict[str, Any]) -> None:
    import django
    from django.conf import settings
    from django.core.cache import caches
    from django.test import override_settings

    names = {name: without_ellipsis(value) for name, value in namespace.items() if name.isupper()}
    if not settings.configured:
        settings.configure(**{"SECRET_KEY": "for the documentation", "USE_TZ": True, **names})
        django.setup()
    else:
        override_settings(**names).enable()
    for alias in names["CACHES"]:
        caches[alias].set("documentation", alias)
        if caches[alias].get("documentation") != alias:
            raise Mismatch(f"CACHES[{alias!r}] does not return what was set")
        caches[alias].delete("documentation")


def without_ellipsis(value: Any) -> Any:
    return [item for item in value if item is not ...] if isinstance(value, list) else value


def run_doctest(block: Block, namespace: dict[str, Any], where: str) -> None:
    test = doctest.DocTestParser().get_doctest(block.code, namespace, where, where, block.line - 1)
    # The parser copies the namespace, and the runner would clear it.
    test.globs = namespace
    report = io.StringIO()
    if (
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        .run(test, out=report.write, clear_globs=False)
        .failed
    ):
        raise Mismatch(report.getvalue())


@contextlib.contextmanager
def servers(page: str) -> Iterator[str]:
    """The page with the address of a server that runs as long as this."""
    if SERVER not in page:
        yield page
        return
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.redis.servers import RedisServer

    with RedisServer() as server:
        yield page.replace(SERVER, f"127.0.0.1:{server.port}")


def main(path: Path) -> None:
    with servers(path.read_text(encoding="utf-8")) as page:
        run_page(path, page)


def run_page(path: Path, text: str) -> None:
    # A module that can be found under its name, so that what the page defines can be pickled.
    page = types.ModuleType("__main__")
    sys.modules["run_blocks"], sys.modules["__main__"] = sys.modules["__main__"], page
    namespace = page.__dict__
    ran = 0
    for block in blocks(text):
        match block.language:
            case "python" | "py":
                run_python(block, namespace, str(path))
            case "pycon":
                run_doctest(block, namespace, str(path))
            case "json":
                json.loads(block.code)
            case "toml":
                tomllib.loads(block.code)
            case _:
                continue
        ran += 1
    sys.stderr.write(f"{ran} blocks of {path.name} ran\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
