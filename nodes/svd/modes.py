"""SVD-XT, as Generate Video offers it."""

from comfy_execution.graph_utils import GraphBuilder

from ..inputs import ABSENT
from ..modes import Mode, inputs_of, renamed
from .nodes import SVDImageToVideo, SVDLoader, check_given, model_path

SAMPLING = (
    "width", "height", "frames", "fps", "steps", "motion_bucket_id", "noise_aug_strength", "min_guidance",
    "max_guidance", "decode_chunk",
)  # fmt: skip


def check(prompt: str | None, given: dict):
    check_given(given.get("image", ABSENT))
    if given["checkpoint"] is not None:
        model_path(given["checkpoint"])


def build(graph: GraphBuilder, prompt: str, seed: int, given: dict) -> list:
    model = graph.node("Xavi9SVDLoader", model=given["checkpoint"]).out(0)
    values = {name: given[name] for name in ("image", *SAMPLING)}
    return graph.node("Xavi9SVDImageToVideo", model=model, seed=seed, **values).out(0)


def modes() -> dict[str, Mode]:
    [file] = inputs_of(SVDLoader, "model")
    [image, *sampling] = inputs_of(SVDImageToVideo, "image", *SAMPLING)
    return {"svd": Mode([image, renamed(file, "checkpoint"), *sampling], check, build)}
