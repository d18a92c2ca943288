"""The routes of the saved videos, and what is done at the start about those that are too many."""

import asyncio
import logging

from aiohttp import web

from .. import index
from ..checks import check_number
from ..errors import BadSetting, OutOfRange
from ..host import server
from ..settings import storage
from . import history
from .retention import clean_up

log = logging.getLogger(__name__)

PAGE, SIZE, MOST_PAGES, MOST_VIDEOS = 1, 24, 100_000, 100
# A page asks for all its posters at once, and prompts run meanwhile.
_decoding = asyncio.Semaphore(2)


def asked(request: web.Request, name: str, usual: int, highest: int) -> int:
    """A number of the query. Raises OutOfRange."""
    given = request.query.get(name, usual)
    try:
        number = int(given)
    except ValueError:
        raise OutOfRange(name=name, given=given, lowest=1, highest=highest) from None
    check_number(name, number, 1, highest)
    return number


async def videos(request: web.Request) -> dict:
    number, size = asked(request, "page", PAGE, MOST_PAGES), asked(request, "size", SIZE, MOST_VIDEOS)
    return await asyncio.to_thread(history.page, number, size)


async def poster(request: web.Request) -> web.Response:
    video_id = request.match_info["id"]
    known = await asyncio.to_thread(history.find, video_id)
    # An id stands for one content of one file.
    headers = {"ETag": f'"{video_id}"', "Cache-Control": "private, max-age=86400, immutable"}
    if any(it.value == video_id for it in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    async with _decoding:
        data = await asyncio.to_thread(history.poster, known)
    return web.Response(body=data, content_type="image/jpeg", headers=headers)


async def workflow(request: web.Request) -> dict:
    return await asyncio.to_thread(history.workflow, request.match_info["id"])


async def delete(request: web.Request) -> dict:
    return await asyncio.to_thread(history.delete, request.match_info["id"])


def register():
    server.answer("GET", "videos", videos)
    # The <img> of a page can name no user; who asks has the id from a list that is shown to users only.
    server.answer("GET", "videos/{id}/poster", poster, anyone=True)
    server.answer("GET", "videos/{id}/workflow", workflow)
    server.answer("DELETE", "videos/{id}", delete)
    index.after_add.append(clean_up)
    try:
        storage()
    except BadSetting as failure:
        log.error("Saved videos are not listed, and none is removed: %s", failure)
