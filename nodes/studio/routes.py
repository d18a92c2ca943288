"""What the pack answers over HTTP, under /xavi9; README names it, a help page describes it."""

from ..host import server
from .health import health


async def health_asked(request) -> dict:
    return await health()


def register():
    server.get("health", health_asked)
