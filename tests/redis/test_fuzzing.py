"""Property tests as a fuzzer finds them."""

from __future__ import annotations

from tests import fuzzing
from tests.redis import test_fuzzed_answers


def test_targets() -> None:
    """Tests that take nothing from pytest; bytes are an input for each."""
    assert "tests.redis.test_fuzzed_answers" in fuzzing.modules()
    found = fuzzing.targets(test_fuzzed_answers)
    assert "test_pushes_of_any_kind" in found
    assert "test_records_of_any_bytes" not in found
    for test in found.values():
        test.hypothesis.fuzz_one_input(bytes(range(256)))
