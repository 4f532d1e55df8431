"""Bytes that were good once."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def mutated(draw: st.DrawFn, good: bytes) -> bytes:
    """With one to three changes: bytes replaced, cut out, put in, doubled, or the end cut off."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 16))
        change = draw(st.sampled_from(["flip", "replace", "cut", "insert", "double", "truncate"]))
        if change == "flip" and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif change == "replace":
            data[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif change == "cut":
            del data[place : place + length]
        elif change == "insert":
            data[place:place] = draw(st.binary(max_size=16) | st.sampled_from([b"\xff" * 8, bytes(8)]))
        elif change == "double":
            data[place:place] = data[place : place + length]
        elif change == "truncate":
            del data[place:]
    return bytes(data)
