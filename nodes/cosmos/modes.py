"""Cosmos, as Generate Video offers it."""

from functools import partial

from comfy_execution.graph_utils import GraphBuilder

from ..checks import check_prompt
from ..modes import Mode, inputs_of
from .media import check_one
from .nodes import CosmosText2World, CosmosVideo2World

SHARED = ("negative_prompt", "aspect_ratio", "resolution", "frames", "fps", "steps", "guidance_scale")


def check_text(prompt: str | None, given: dict):
    check_prompt(prompt)


def check_start(prompt: str | None, given: dict):
    check_prompt(prompt)
    check_one("image" in given, "video" in given)


def build(node: str, graph: GraphBuilder, prompt: str, seed: int, given: dict) -> list:
    return graph.node(node, prompt=prompt, seed=seed, **given).out(0)


def modes() -> dict[str, Mode]:
    text = inputs_of(CosmosText2World, *SHARED, "prompt_upsampling")
    start = inputs_of(CosmosVideo2World, "image", "video", *SHARED)
    return {
        "cosmos_text2world": Mode(text, check_text, partial(build, "Xavi9CosmosText2World")),
        "cosmos_video2world": Mode(start, check_start, partial(build, "Xavi9CosmosVideo2World")),
    }
