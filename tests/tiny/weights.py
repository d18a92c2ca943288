"""Random weights by name, and the ways in which the published files store them."""

import json
import math
import zlib
from pathlib import Path

import torch

_E4M3_MAX = 448.0
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_DTYPES = {"fp4": torch.bfloat16, "fp8": torch.bfloat16,
           "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
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


def quantize_fp4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """NVFP4: (two E2M1 values in each byte, an E4M3 scale for each 16 of a row, their common float32 scale).

    weight: [out, in], the second a multiple of 16; rows are filled up to one with zeros. The first value of a byte is
    its upper half. The scales lie as NVIDIA's tensor cores read them (cuBLAS, "1D block scaling factors layout"): in
    tiles of 128 x 4, whose rows r and r + 32, + 64, + 96 stand beside each other.
    """
    weight = torch.nn.functional.pad(weight.float(), (0, 0, 0, -len(weight) % 16))
    rows, columns = weight.shape
    common = weight.abs().amax() / (_E2M1[-1] * _E4M3_MAX)
    blocks = weight.reshape(rows, columns // 16, 16)
    scales = (blocks.abs().amax(-1) / _E2M1[-1] / common).clamp(max=_E4M3_MAX).to(torch.float8_e4m3fn)
    values = blocks / (scales.float() * common).clamp(min=1e-30).unsqueeze(-1)
    magnitude = (values.abs().unsqueeze(-1) - torch.tensor(_E2M1)).abs().argmin(-1)
    codes = (magnitude + 8 * (values < 0)).to(torch.uint8).reshape(rows, columns)
    padded = torch.zeros(-(-rows // 128) * 128, -(-columns // 64) * 4, dtype=torch.float8_e4m3fn)
    padded.view(torch.uint8)[:rows, : columns // 16] = scales.view(torch.uint8)
    tiles = padded.view(torch.uint8).reshape(len(padded) // 128, 4, 32, -1, 4).permute(0, 3, 2, 1, 4)
    laid = tiles.reshape(padded.shape).contiguous().view(torch.float8_e4m3fn)
    return codes[:, ::2] * 16 + codes[:, 1::2], laid, common


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
