"""Whether LTX-2's files are there, and loaded."""

import asyncio

from ..errors import ModelFileMissing
from ..host import paths
from ..states import State, of_files, of_kind
from .model import text_encoder_path, text_encoders

CHECKPOINT, TEXT_ENCODER = "ltx-2-19b-distilled-fp8.safetensors", "gemma_3_12B_it_fp8_scaled.safetensors"


def check_encoder():
    """Raise ModelFileMissing where no text encoder is there."""
    found, _ = of_kind(("Gemma 3",), text_encoders(), text_encoder_path)
    if not found:
        folders = " or ".join(paths.model_folders("text_encoders"))
        raise ModelFileMissing(file=TEXT_ENCODER, folder=folders, model="ltx2")


async def states() -> list[State]:
    return [await asyncio.to_thread(of_files, "ltx2", ("LTX-2", "LTX-2.3"), "ltx2", CHECKPOINT, check_encoder)]
