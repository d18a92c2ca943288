"""Whether LTX-2's files are there, and loaded."""

import asyncio
from pathlib import Path

from ..errors import ModelFileMissing
from ..host import paths
from ..states import State, of_files
from .nodes import text_encoder_path, text_encoders

CHECKPOINT, TEXT_ENCODER = "ltx-2-19b-distilled-fp8.safetensors", "gemma_3_12B_it_fp8_scaled.safetensors"


def encoders() -> list[Path]:
    found = [it for it in text_encoders() if "gemma" in it.lower()]
    if not found:
        folders = " or ".join(paths.model_folders("text_encoders"))
        raise ModelFileMissing(file=TEXT_ENCODER, folder=folders, model="ltx2")
    return [Path(text_encoder_path(found[0]))]


async def states() -> list[State]:
    return [await asyncio.to_thread(of_files, "ltx2", "LTX-2", "ltx2", CHECKPOINT, encoders)]
