"""Whether the NIM of each mode is there, and which family it serves."""

import asyncio

from .. import settings
from ..errors import CosmosFamilyUnknown, CosmosNotReady, CosmosOtherMode, CosmosRedirected
from ..states import READY, STARTING, UNREACHABLE, State, of_failure
from .client import Client, address_of
from .families import family_set

# Less than the room has: the first time, httpx is imported meanwhile.
SECONDS = 1.5


async def states() -> list[State]:
    """Of both modes, asked side by side. Raises BadSetting."""
    return await asyncio.gather(*(state(mode) for mode in ("text2world", "video2world")))


async def state(mode: str) -> State:
    chosen, name = settings.cosmos(), f"cosmos_{mode}"
    given = family_set(chosen.cosmos_family)
    address = address_of(mode, chosen)
    client = Client(address, chosen)
    try:
        async with asyncio.timeout(SECONDS), client.connect(SECONDS) as http:
            if words := await client.state(http):
                kind = STARTING if client.starting else UNREACHABLE
                return of_failure(name, kind, client.failure(CosmosNotReady, state=words), address.url)
            family = given or await client.ask_family(http, mode)
            return State(name, READY, address.url, what=f"{family.label} at {address.url} is ready")
    except TimeoutError:
        failure = client.failure(CosmosNotReady, state=f"it has not answered within {SECONDS} seconds")
    except (CosmosFamilyUnknown, CosmosOtherMode, CosmosRedirected) as found:
        failure = found
    return of_failure(name, UNREACHABLE, failure, address.url)
