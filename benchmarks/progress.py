"""A progress bar on the terminal when tqdm is installed, silence otherwise."""

from __future__ import annotations

from collections.abc import Callable

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None


def progress_bar(total: int, label: str) -> Callable[[], object]:
    """Call the result once per step."""
    if tqdm is None:
        return lambda: None
    bar = tqdm(total=total, desc=label, leave=False)

    def step() -> None:
        bar.update()
        if bar.n >= total:
            bar.close()

    return step
