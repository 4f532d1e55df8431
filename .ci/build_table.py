"""Hatch's hook that compiles the hot table for a wheel or an editable install, where there is a compiler."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "quickcache_core.store._table"
FOLDER = Path("quickcache_core", "store")


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
                put_beside_source(built, Path(self.root, FOLDER))
        except (Exception, SystemExit) as error:
            # Whatever is wrong with a compiler here, the package is whole without it.
            self.app.display_warning(f"The hot table in C isn't built ({type(error).__name__}: {error})")
            return
        if version != "editable":
            build_data["force_include"][str(built)] = str(FOLDER / built.name)
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(getattr(self, "_folder", ""), ignore_errors=True)


def put_beside_source(built: Path, folder: Path) -> None:
    # In one step: another process may be importing what is there.
    beside = folder / f"{built.name}.{os.getpid()}.tmp"
    try:
        shutil.copy2(built, beside)
        beside.replace(folder / built.name)
    finally:
        beside.unlink(missing_ok=True)


def compiled(root: Path, folder: Path) -> Path:
    # Here, so that nothing is asked of it where nothing is built.
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    extension = Extension(MODULE, [str(root / FOLDER / "_table.c")])
    command = build_ext(Distribution({"name": "quickcache-web", "ext_modules": [extension]}))
    command.build_lib = str(folder)
    command.build_temp = str(folder / "objects")
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(MODULE))
