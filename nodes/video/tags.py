"""Prompt and workflow in files whose container FFmpeg gives no tags, as ComfyUI's own nodes write them."""

import struct
from pathlib import Path
from zlib import crc32

import PIL.Image

from .formats import PICTURES

# EXIF's names for tags of text (Exif 2.32, 4.6.4), in the order in which ComfyUI's SaveAnimatedWEBP takes them.
MODEL, MAKE = 0x0110, 0x010F
HAS_EXIF, HAS_ALPHA, NO_BLENDING = 0x08, 0x10, 0x02


def tag_png(folder: Path, tags: dict[str, str]):
    """Text chunks in the first picture, right behind its header (PNG specification, 11.3.4)."""
    file = folder / (PICTURES % 1)
    data = file.read_bytes()
    end = 8 + 25  # the signature and IHDR
    texts = b""
    for key, value in tags.items():
        chunk = b"tEXt" + key.encode() + b"\0" + value.encode("latin-1")
        texts += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", crc32(chunk))
    file.write_bytes(data[:end] + texts + data[end:])


def tag_webp(file: Path, tags: dict[str, str]):
    """An EXIF chunk at the end, and flags in front (WebP container specification, Extended File Format)."""
    data = bytearray(file.read_bytes())
    if data[12:16] != b"VP8X":
        # A single picture is in the format that has no room for more.
        with PIL.Image.open(file) as picture:
            width, height = (struct.pack("<I", side - 1)[:3] for side in picture.size)
        data[12:12] = b"VP8X" + struct.pack("<II", 10, 0) + width + height
    # FFmpeg has each picture drawn over the last, which shows through where the new one is clear.
    at = 12
    while at < len(data):
        if data[at : at + 4] == b"ANMF":
            data[at + 8 + 15] |= NO_BLENDING
        size = struct.unpack_from("<I", data, at + 4)[0]
        at += 8 + size + size % 2
    # libwebp cuts off edges that are clear, and then forgets to say that there are some.
    data[20] |= HAS_ALPHA
    if tags:
        exif = PIL.Image.Exif()
        others = [key for key in tags if key != "prompt"]
        for number, key in [(MODEL, "prompt"), *((MAKE - index, key) for index, key in enumerate(others))]:
            exif[number] = f"{key}:{tags[key]}"
        chunk = exif.tobytes().removeprefix(b"Exif\0\0")
        data[20] |= HAS_EXIF
        data += b"EXIF" + struct.pack("<I", len(chunk)) + chunk + b"\0" * (len(chunk) % 2)
    data[4:8] = struct.pack("<I", len(data) - 8)
    file.write_bytes(data)


OWN_TAGS = {"image2": tag_png, "webp": tag_webp}
