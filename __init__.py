"""Xavi9Videos: AI video on your own NVIDIA machine, as ComfyUI nodes. The door only; the rooms are in nodes/."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    # Inside the function, because pytest imports this file where no ComfyUI is.
    from .nodes.extension import Xavi9Videos

    return Xavi9Videos()
