"""What the pack answers over HTTP, under /xavi9; README names it, a help page describes it."""

from importlib import import_module

from ..host import server
from .health import health


async def health_asked(request) -> dict:
    return await health()


def register():
    server.answer("GET", "health", health_asked, anyone=True)
    # It needs the libraries that read videos; health has to answer when those are what is missing.
    import_module(".videos", __package__).register()
