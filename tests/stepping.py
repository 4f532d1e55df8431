"""What becomes of a call if something else happens in the middle of it: between any two of its steps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any


def at_step(number: int, modules: list[ModuleType], call: Callable[[], Any], then: Callable[[], Any]) -> bool:
    """Make a call, and `then` before that step of what it runs of these modules; whether there are as many.

    A step is an instruction of the interpreter's: what another thread does may come between any two.
    """
    files = {module.__file__ for module in modules}
    left = number

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if left == 0:
                then()
            left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return left < 0
