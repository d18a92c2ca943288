"""A node pack for tests: what the host has loaded, and a Linux that seems to have no memory left.

The latter while a file `no-memory` lies in the input folder.
"""

from pathlib import Path

import folder_paths
import psutil
from aiohttp import web
from comfy import model_management
from server import PromptServer

real = psutil.virtual_memory


def virtual_memory():
    short = (Path(folder_paths.get_input_directory()) / "no-memory").exists()
    return real()._replace(available=1_000_000) if short else real()


@PromptServer.instance.routes.get("/test/loaded")
async def loaded(request: web.Request) -> web.Response:
    """The classes of the modules in the host's list of loaded models."""
    models = [it.model for it in model_management.current_loaded_models]
    return web.json_response([type(it.model.diffusion_model).__name__ for it in models if it is not None])


psutil.virtual_memory = virtual_memory
NODE_CLASS_MAPPINGS = {}
