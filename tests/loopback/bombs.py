"""Small gzip files of enormous content, made without ever holding the content."""

from __future__ import annotations

import struct
import zlib
from functools import cache

__all__ = ["packed"]


@cache
def _check_of(check: int, block: bytes, times: int) -> int:
    """Remembered: to go over 256 MiB takes longer than the test that wants them."""
    for _ in range(times):
        check = zlib.crc32(block, check)
    return check


def packed(head: bytes, block: bytes, times: int, tail: bytes) -> bytes:
    """gzip of `head`, `times` times `block`, `tail`: one member, correct to its check sum.

    A full flush makes deflate forget what came before (zlib's manual), so that a block that was packed once can be
    repeated.
    """
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = deflate.compress(head) + deflate.flush(zlib.Z_FULL_FLUSH)
    once = deflate.compress(block) + deflate.flush(zlib.Z_FULL_FLUSH)
    last = deflate.compress(tail) + deflate.flush()
    check = _check_of(zlib.crc32(head), block, times)
    size = len(head) + times * len(block) + len(tail)
    end = struct.pack("<II", zlib.crc32(tail, check), size % 2**32)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + first + once * times + last + end
