"""CRC-32, the checksum of blocks and inputs: that of zlib (IEEE 802.3), by Intel's ISA-L where it is installed, which
is many times as fast.

>>> crc32(b"123456789") == crc32(b"6789", crc32(b"12345")) == 0xCBF43926
True
"""

from __future__ import annotations

from collections.abc import Callable

try:
    from isal.isal_zlib import crc32 as _crc32
except ImportError:  # no wheel for this machine
    from zlib import crc32 as _crc32

crc32: Callable[..., int] = _crc32
"""`crc32(content, before=0)`: the CRC-32 of `content`, or of what has the CRC-32 `before` and goes on with `content`.

The library's own function: a function of Python around it takes as long as the sum of some hundred bytes.
"""


def is_sha256(value: object) -> bool:
    """Whether this is the text of a SHA-256: 64 hexadecimal digits in lower case.

    >>> is_sha256("0" * 64), is_sha256("A" * 64), is_sha256(None)
    (True, False, False)
    """
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")
