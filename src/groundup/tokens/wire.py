"""The wire format of Protocol Buffers, as far as a file needs it: numbers and byte strings under field numbers.

In: the bytes of one message. Out: its fields, in the order they stand. Nothing is built from what the file claims:
every length is compared with the bytes that are there. Format: protobuf.dev, "Encoding" (wire types 0, 1, 2 and 5).
"""

from collections.abc import Iterator

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_MOST_FIELD = (1 << 29) - 1


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message as (number, value): varints and fixed numbers are unsigned ints, the rest bytes.

    `signed` turns an int into the negative one it stands for. A fixed number is little-endian; a float's holds its
    bits. Raises ValueError for a message that ends too soon, a length beyond its end, an unknown wire type (groups).

    >>> list(fields(b"\\x08\\x96\\x01\\x12\\x02hi"))
    [(1, 150), (2, b'hi')]
    """
    place = 0
    while place < len(data):
        tag, place = varint(data, place)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _MOST_FIELD:
            raise ValueError(f"field number {number} at byte {place:,}")
        if kind == _VARINT:
            value, place = varint(data, place)
            yield number, value
            continue
        if kind == _BYTES:
            size, place = varint(data, place)
        elif kind in (_FOUR, _EIGHT):
            size = 4 if kind == _FOUR else 8
        else:
            raise ValueError(f"wire type {kind} of field {number} at byte {place:,}")
        if size > len(data) - place:
            raise ValueError(f"field {number} claims {size:,} bytes, but {len(data) - place:,} are left")
        piece = data[place : place + size]
        place += size
        yield number, piece if kind == _BYTES else int.from_bytes(piece, "little")


def varint(data: bytes, place: int) -> tuple[int, int]:
    """The number that begins at `place`, seven bits a byte, lowest first, and the place behind it; at most 64 bits.

    >>> varint(b"\\x96\\x01", 0)
    (150, 2)
    """
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("the message ends inside a number")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, place
    raise ValueError(f"a number of more than 64 bits ends at byte {place:,}")


def signed(value: int) -> int:
    """The int32 or int64 that a varint stands for: two's complement in 64 bits.

    >>> signed((1 << 64) - 1), signed(7)
    (-1, 7)
    """
    return value - (1 << 64) if value >> 63 else value
