"""Whether SVD-XT's files are there, and loaded."""

import asyncio

from ..states import State, of_files

CHECKPOINT = "svd_xt.safetensors"


async def states() -> list[State]:
    return [await asyncio.to_thread(of_files, "svd", ("Stable Video Diffusion",), "svd", CHECKPOINT)]
