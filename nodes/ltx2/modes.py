"""LTX-2, as Generate Video offers it."""

from comfy_execution.graph_utils import GraphBuilder

from ..checks import check_prompt
from ..modes import Mode, inputs_of, renamed
from .model import checkpoint_path, text_encoder_path
from .nodes import LTX2Loader, LTX2Sampler, LTX2TextEncode, check_steps

FILES = {"checkpoint": checkpoint_path, "text_encoder": text_encoder_path}
SAMPLING = ("width", "height", "frames", "fps", "schedule", "steps", "guidance_scale", "image_strength")


def check(prompt: str | None, given: dict):
    check_prompt(prompt)
    for name, path in FILES.items():
        if given[name] is not None:
            path(given[name])
    check_steps(given["schedule"], given["steps"])


def build(graph: GraphBuilder, prompt: str, seed: int, given: dict) -> list:
    files = {name: given[name] for name in FILES}
    model = graph.node("Xavi9LTX2Loader", **files, weights="auto").out(0)
    text = graph.node("Xavi9LTX2TextEncode", model=model, prompt=prompt, negative_prompt=given["negative_prompt"])
    start = {"first_image": given["image"]} if "image" in given else {}
    sampling = {name: given[name] for name in SAMPLING}
    latents = graph.node("Xavi9LTX2Sampler", model=model, conditioning=text.out(0), seed=seed, **sampling, **start)
    return graph.node("Xavi9LTX2Decode", model=model, latents=latents.out(0), tiling="auto").out(0)


def modes() -> dict[str, Mode]:
    [image, *sampling] = inputs_of(LTX2Sampler, "first_image", *SAMPLING)
    negative = inputs_of(LTX2TextEncode, "negative_prompt")
    inputs = [renamed(image, "image"), *negative, *inputs_of(LTX2Loader, *FILES), *sampling]
    return {"ltx2": Mode(inputs, check, build)}
