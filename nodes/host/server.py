"""Routes on ComfyUI's own server."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from server import PromptServer

from ..errors import Failure, FilesNotUsable, UserUnknown

log = logging.getLogger(__name__)

PREFIX = "/xavi9"


def check_user(request: web.Request):
    """Raise UserUnknown where the server has several users and the request names none of them."""
    try:
        PromptServer.instance.user_manager.get_request_user_id(request)
    except KeyError:
        raise UserUnknown() from None


def answer(
    method: str,
    path: str,
    handler: Callable[[web.Request], Awaitable[dict | web.Response]],
    anyone: bool = False,
):
    """Have `method` /xavi9/`path` answered with JSON, or as the handler makes it; also under /api, as the editor asks.

    A Failure is answered with its status as {"error": {"code", "message", "remedy"}}. anyone: whether a server with
    several users answers also who names none of them. The host itself refuses what another site's page asks for.
    """

    async def handle(request: web.Request) -> web.Response:
        try:
            if not anyone:
                check_user(request)
            found = await handler(request)
            return web.json_response(found) if isinstance(found, dict) else found
        except Failure as known:
            failure = known
        except OSError as error:
            log.warning("%s", error)
            # Not the error's own words, which name a path on this machine.
            failure = FilesNotUsable(reason=error.strerror or "they are busy")
        answered = {"code": failure.code, "message": failure.what, "remedy": failure.cure}
        return web.json_response({"error": answered}, status=failure.status)

    PromptServer.instance.routes.route(method, f"{PREFIX}/{path}")(handle)
