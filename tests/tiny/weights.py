"""Random weights by name, and the ways in which the published files store them."""

import json
import math
import zlib
from pathlib import Path

import torch

_E4M3_MAX = 448.0
_DTYPES = {"fp8": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float8_e4m3fn: "F8_E4M3",
          torch.uint8: "U8"}


def normal(name: str, shape: tuple[int, ...], std: float = 1.0) -> torch.Tensor:
    """float32 values that depend on the name and the shape alone, so that the order of building does not matter."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(tuple(shape), generator=generator) * std


def fan_in(shape: tuple[int, ...]) -> int:
    """How many inputs one output of a Linear (out, in) or a convolution (out, in, *kernel) sums up."""
    return math.prod(shape[1:])


def dtype(weights: str) -> torch.dtype:
    """What everything but the quantized layers and the AdaLN tables has. Raises ValueError for an unknown kind."""
    if weights not in _DTYPES:
        raise ValueError(f"weights={weights!r}; known: {', '.join(_DTYPES)}")
    return _DTYPES[weights]


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight as float8_e4m3fn, its scale as a float32 scalar): weight is about quantized.float() * scale."""
    scale = (weight.float().abs().amax() / _E4M3_MAX).clamp(min=1e-12)
    return (weight.float() / scale).to(torch.float8_e4m3fn), scale


def save(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes a .safetensors file, the same bytes for the same content."""
    # safetensors' own writer keeps the metadata in a hash map, whose order differs from process to process.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, start = {"__metadata__": dict(sorted(metadata.items()))}, 0
    for name in names:
        end = start + tensors[name].nbytes
        header[name] = {"dtype": _NAMES[tensors[name].dtype], "shape": list(tensors[name].shape),
                        "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
