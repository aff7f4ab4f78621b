"""Whether a video file was cut off: whether it is shorter than its container says."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_ASF_HEADER = bytes.fromhex('3026b2758e66cf11a6d900aa0062ce6c')
_ASF_PROPERTIES = bytes.fromhex('a1dcab8c47a9cf118ee400c00c205365')


def is_cut_off(path: str | Path) -> bool:
    """Whether the end of a file is missing, by the sizes that its container holds (not by its counts or durations).

    Args:
        path: A video: MP4 and its kin, Matroska, AVI, FLV, ASF or Ogg.

    Returns:
        False also where the container says nothing of its size (MPEG streams, live recordings).
    """
    with open(path, 'rb') as file:
        length = file.seek(0, 2)
        file.seek(0)
        start = file.read(16)
        for is_kind, check in _CHECKS:
            if is_kind(start):
                try:
                    file.seek(0)
                    return check(file, length)
                except (struct.error, IndexError, ValueError, OSError):
                    return True
    return False


def _mp4(file: BinaryIO, length: int) -> bool:
    """Boxes, ISO/IEC 14496-12, 4.2: 32 bits of size, or 1 and 64 bits, or 0 for the rest of the file."""
    place = 0
    while place < length:
        file.seek(place)
        size = struct.unpack('>I4x', file.read(8))[0]
        if size == 1:
            size = struct.unpack('>Q', file.read(8))[0]
        if size == 0:
            return False
        place += max(size, 8)
    return place > length


def _matroska(file: BinaryIO, length: int) -> bool:
    """The EBML head and the segment, RFC 8794, 6: an id and a size as variable integers."""
    for _ in range(2):
        first = file.read(1)[0]
        file.seek(8 - first.bit_length(), 1)
        first = file.read(1)[0]
        more = 8 - first.bit_length()
        size = int.from_bytes(bytes([first & (0x7F >> more)]) + file.read(more), 'big')
        if size == (1 << 7 * (more + 1)) - 1:
            return False
        place = file.seek(size, 1)
    return place > length


def _avi(file: BinaryIO, length: int) -> bool:
    """RIFF chunks, several in large files."""
    place = 0
    while place < length:
        file.seek(place)
        kind, size = struct.unpack('<4sI', file.read(8))
        if kind != b'RIFF':
            return False
        place += 8 + size
    return place > length


def _flv(file: BinaryIO, length: int) -> bool:
    """Behind each tag stands its size (Adobe Flash Video File Format Specification 10.1, E.3)."""
    file.seek(length - 4)
    size = struct.unpack('>I', file.read(4))[0]
    file.seek(length - 4 - size)
    tag = file.read(4)
    return tag[0] not in (8, 9, 18) or int.from_bytes(tag[1:], 'big') != size - 11


def _asf(file: BinaryIO, length: int) -> bool:
    """The file properties hold the file's size (Advanced Systems Format Specification 3.2)."""
    head = file.read(1 << 16)
    place = head.index(_ASF_PROPERTIES)
    size, flags = struct.unpack_from('<Q', head, place + 40)[0], struct.unpack_from('<I', head, place + 88)[0]
    is_live = flags & 1
    return not is_live and size > length


def _ogg(file: BinaryIO, length: int) -> bool:
    """The last page of a stream says that it is the last (RFC 3533, 6)."""
    file.seek(max(0, length - (1 << 17)))
    tail = file.read()
    return not tail[tail.rindex(b'OggS') + 5] & 4


_CHECKS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], bool]], ...] = (
    (lambda head: head[4:8] in (b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip'), _mp4),
    (lambda head: head.startswith(b'\x1a\x45\xdf\xa3'), _matroska),
    (lambda head: head.startswith(b'RIFF'), _avi),
    (lambda head: head.startswith(b'FLV'), _flv),
    (lambda head: head == _ASF_HEADER, _asf),
    (lambda head: head.startswith(b'OggS'), _ogg),
)
