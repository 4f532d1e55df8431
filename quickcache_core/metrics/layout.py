"""The figures file: what stands where.

All words are unsigned, of 64 bits, in the machine's order, and each is stored as a whole: a reader sees the
old or the new one. Nothing is ever added to a word in place.

    header      4096 bytes, with two banks for the totals of processes that have ended
    commands    16 records of 512 bytes
    slots       up to 1024 of 512 bytes, one for each store that a process publishes

The byte at the start of the file is locked by whoever changes more than its own slot; the first byte of a
slot by the process that it belongs to.
"""

from __future__ import annotations

import sys
from typing import Final

MAGIC: Final = int.from_bytes(b"QCfigure", sys.byteorder)
VERSION: Final = 2
WORD: Final = 8
UNKNOWN: Final = 2**64 - 1
"""What stands for None."""

HEADER_SIZE: Final = 4096
COMMAND_SIZE: Final = 512
COMMANDS: Final = 16
SLOT_SIZE: Final = 512
SLOTS: Final = 1024
FIXED_SIZE: Final = HEADER_SIZE + COMMANDS * COMMAND_SIZE
"""Bytes that are allocated when the file is made; those of a slot when it is first used."""
FILE_SIZE: Final = FIXED_SIZE + SLOTS * SLOT_SIZE

# Words of the header
H_MAGIC: Final = 0
H_VERSION: Final = 1
H_BOOT: Final = 2
"""Two words."""
H_SLOTS: Final = 4
"""Slots that were ever used. Those behind are holes in the file, and reading a hole costs memory."""
H_CLAIMS: Final = 5
"""Number of the last claim; each claim of a slot has one of its own."""
H_NEWEST: Final = 6
"""Number of the last command."""
H_GENERATION: Final = 8
"""Counts the changes of the totals of ended processes; its last bit says which bank holds."""
BANKS: Final = (16, 48)

# Words of a bank, counted from its start
B_FOLDED: Final = 0
"""The claim that was added last."""
B_ENDED: Final = 1
"""How many claims were added."""
B_COUNTERS: Final = 2

# Words of a slot, counted from its start
S_CLAIM: Final = 0
"""0: the slot is free."""
S_PID: Final = 1
S_STARTED: Final = 2
"""Milliseconds of the monotonic clock, which all processes of a system share."""
S_PUBLISHED: Final = 3
S_FIGURES: Final = 4
"""The fields of `StoreFigures`."""
S_RATE: Final = 20
"""Operations per second, in thousandths."""
S_OBEYED: Final = 21
"""Number of the last command that was carried out."""
S_SERVER: Final = 24
SERVER_BYTES: Final = 32

# Words of a command, counted from its start
C_NUMBER: Final = 0
C_KIND: Final = 1
C_SENT: Final = 2
"""Nanoseconds of the monotonic clock."""
C_LIMIT: Final = 3
C_LENGTH: Final = 4
C_PREFIX: Final = 5
PREFIX_BYTES: Final = COMMAND_SIZE - C_PREFIX * WORD


def slot_offset(number: int) -> int:
    """Bytes from the start of the file."""
    return FIXED_SIZE + number * SLOT_SIZE


def command_word(number: int) -> int:
    """Words from the start of the file."""
    return (HEADER_SIZE + number % COMMANDS * COMMAND_SIZE) // WORD
