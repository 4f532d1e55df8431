"""Hatch's hook that compiles what is in C for a wheel or an editable install, where there is a compiler."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULES = (
    "quickcache_core.eviction_policy._queue",
    "quickcache_core.store._table",
    "quickcache_core.store._writer",
)


class TableHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # An editable install is for tests of both: what was refused at import can be used the next time.
        refused = version != "editable" and os.environ.get("QUICKCACHE_PURE", "0") not in ("", "0")
        if refused or sys.implementation.name != "cpython":
            return
        self._folder = tempfile.mkdtemp()
        try:
            built = compiled(Path(self.root), Path(self._folder))
            if version == "editable":
                for source, place in built.items():
                    put_beside_source(source, Path(self.root, place))
        except (Exception, SystemExit) as error:
            # Whatever is wrong with a compiler here, the package is whole without it.
            self.app.display_warning(f"What is in C isn't built ({type(error).__name__}: {error})")
            return
        if version != "editable":
            build_data["force_include"].update({str(source): str(place) for source, place in built.items()})
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(getattr(self, "_folder", ""), ignore_errors=True)


def put_beside_source(built: Path, place: Path) -> None:
    # In one step: another process may be importing what is there.
    beside = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    try:
        shutil.copy2(built, beside)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def number_of(root: Path, sources: list[Path]) -> int:
    """Tells files that were compiled of different sources from each other."""
    headers = sorted((root / "quickcache_core").rglob("*.h"))
    return zlib.crc32(b"".join(path.read_bytes() for path in [*sources, *headers])) & 0x7FFF_FFFF


def compiled(root: Path, folder: Path) -> dict[Path, Path]:
    """What was built, and where in the package each belongs."""
    # Here, so that nothing is asked of it where nothing is built.
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    sources = [root / f"{name.replace('.', '/')}.c" for name in MODULES]
    macros: list[tuple[str, str | None]] = [("QUICKCACHE_BUILD", str(number_of(root, sources)))]
    extensions = [
        Extension(name, [str(source)], define_macros=macros)
        for name, source in zip(MODULES, sources, strict=True)
    ]
    command = build_ext(Distribution({"name": "quickcache-web", "ext_modules": extensions}))
    command.build_lib = str(folder)
    command.build_temp = str(folder / "objects")
    command.ensure_finalized()
    command.run()
    built = [Path(command.get_ext_fullpath(name)) for name in MODULES]
    return {path: path.relative_to(folder) for path in built}
