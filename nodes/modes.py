"""The ways to make a video that Generate Video offers: each room tells its own, made of its own nodes."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder


@dataclass(frozen=True)
class Mode:
    """One way to make a video.

    inputs: what it asks beside prompt and seed. check(prompt, given) raises the failures by which its nodes refuse what
    they are given. build(graph, prompt, seed, given) adds its nodes to `graph` and returns the output that carries the
    video. given: the value of each input; what has no widget and is not connected is not there. To check() None stands
    for what is linked and not known yet, the prompt too.
    """

    inputs: list[io.Input]
    check: Callable[[str | None, dict], None]
    build: Callable[[GraphBuilder, str, int, dict], list]


def inputs_of(node: type[io.ComfyNode], *ids: str) -> list[io.Input]:
    """Copies of these inputs of a node, optional, so that old API files survive new ones."""
    found = {it.id: copy.copy(it) for it in node.define_schema().inputs}
    for it in found.values():
        it.optional = True
    return [found[it] for it in ids]


def renamed(item: io.Input, name: str) -> io.Input:
    item.id = name
    return item
