"""Check of a JPEG before it is decoded: size, beginning, end, and nothing foreign in between.

Decoders fill the missing part of a torn JPEG with grey and only print a warning. Markers: ITU-T
T.81, annex B.
"""

from __future__ import annotations

import re
from typing import Final

from .frames import BadFrame, CameraFault

MOST_PIXELS: Final = 4096 * 4096
"""Largest frame that is decoded, 48 MiB. A short JPEG can claim 65535×65535 pixels."""
_START: Final = b"\xff\xd8"
_END: Final = b"\xff\xd9"
_SCAN: Final = 0xDA
_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a segment that holds height and width."""
# In a scan, 0xFF is followed by 0x00, a restart marker or padding. Progressive scans add tables.
_FOREIGN: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7\xc4\xda\xdd\xfe]")


def check_jpeg(data: bytes) -> BadFrame | None:
    """Return the fault of a JPEG, or `None` if it may be decoded.

    Lost bytes inside a scan that leave all markers whole are not noticed.
    """
    if not data.startswith(_START) or not data.endswith(_END):
        return _torn(f"{len(data)} bytes without a JPEG's beginning or end")
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _SIZES:
            height, width = (
                int.from_bytes(data[at + 5 + two : at + 7 + two], "big") for two in (0, 2)
            )
            if not 0 < height * width <= MOST_PIXELS:
                found = f"expected at most {MOST_PIXELS} pixels, found {width}×{height}"
                return BadFrame(CameraFault.TOO_LARGE, found)
        at += 2 + length
        if marker == _SCAN:
            foreign = _FOREIGN.search(data, at)
            if foreign is None or foreign.start() != len(data) - 2:
                return _torn("one whose scan holds another frame's beginning or end")
            return None
    return _torn("one without a scan")


def _torn(found: str) -> BadFrame:
    return BadFrame(CameraFault.TORN, f"expected a whole JPEG, found {found}")
