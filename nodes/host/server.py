"""Routes on ComfyUI's own server."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from server import PromptServer

PREFIX = "/xavi9"


def get(path: str, answer: Callable[[web.Request], Awaitable[dict]]):
    """Have GET /xavi9/`path` answered with JSON; also under /api, as the editor asks."""

    async def handle(request: web.Request) -> web.Response:
        return web.json_response(await answer(request))

    PromptServer.instance.routes.get(f"{PREFIX}/{path}")(handle)
