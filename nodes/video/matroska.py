"""What FFmpeg does not say of a Matroska file or WebM: how long it is to be, and its exact rate."""

from fractions import Fraction

# A file is a header of some dozens of bytes, and this element.
SEGMENT, HEAD_BYTES = b"\x18\x53\x80\x67", 256


def vint(data: bytes, at: int) -> tuple[int | None, int]:
    """A variable-size number, None where it stands for unknown, and where it ends (RFC 8794, section 4)."""
    length = 9 - data[at].bit_length()
    unknown = (1 << 7 * length) - 1
    value = int.from_bytes(data[at : at + length]) & unknown
    return None if value == unknown else value, at + length


def promised(head: bytes) -> int:
    """Bytes of the Matroska file or WebM that begins so; 0 where it was written as a stream (RFC 9559, section 5.1).

    A download that stopped ends without an error.
    """
    size, at = vint(head, 4)
    # The number after it is one of eight bytes at most.
    if size is None or at + size + 12 > len(head) or head[at + size : at + size + 4] != SEGMENT:
        return 0
    size, at = vint(head, at + size + 4)
    return at + size if size is not None else 0


def exact_rate(rate: Fraction) -> Fraction:
    """The rate that FFmpeg's comes near: of whole nanoseconds it makes a fraction with 30000 above at most.

    60000/1001 becomes 19001/317 so (libavformat/matroskadec.c). All other rates stay.
    """
    exact = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return exact if abs(rate - exact) < rate / 1_000_000 else rate
