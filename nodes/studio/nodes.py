"""The studio's nodes, as the editor shows them."""

import time

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import GraphBuilder

from ..checks import said
from .generate import LAST_SEED, check, check_links, filled, mode_of, options
from .health import health, report


def asked() -> list[io.Input]:
    """What every mode is asked; outside the choice, so that changing it keeps them."""
    return [
        io.String.Input(
            "prompt",
            multiline=True,
            dynamic_prompts=True,
            default="",
            tooltip="The scene, in a few sentences; for LTX-2 also what is heard. SVD-XT takes no text.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=LAST_SEED,
            control_after_generate=True,
            tooltip="The same seed and inputs give the same video on the same machine.",
        ),
    ]


class GenerateVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9GenerateVideo",
            display_name="Generate Video",
            category="Xavi9Videos",
            description="Makes a video from a text or a picture with the model that you choose: Cosmos, LTX-2 or "
            "SVD-XT. It shows what that model needs, and works as the model's own nodes do.",
            search_aliases=["text to video", "image to video", "t2v", "i2v", "cosmos", "ltx-2", "svd", "all in one"],
            enable_expand=True,
            inputs=[
                *asked(),
                io.DynamicCombo.Input(
                    "model",
                    options=options(),
                    tooltip="Cosmos Text2World: text, through a NIM. Cosmos Video2World: a picture or a clip and a "
                    "text, through a NIM. LTX-2 (FP8): text, with a picture or without, and sound. SVD-XT: a picture.",
                ),
            ],
            outputs=[io.Video.Output("video", tooltip="To Video Save.")],
        )

    @classmethod
    def validate_inputs(cls, input_types=None, model=None, **given):
        # Taking all of them is the one way to see the values inside `model`; naming input_types the one to tell an
        # input there that is linked from one that is absent. With either the host leaves its own checks to us.
        return said(cls.check_given, input_types, model or {}, given)

    @classmethod
    def check_given(cls, types: dict[str, str], model: dict, given: dict):
        mode = mode_of(model.get("model"))
        inside = {name.removeprefix("model."): kind for name, kind in types.items() if name.startswith("model.")}
        check_links(asked(), types)
        check_links(mode.inputs, inside)
        check(mode, given.get("prompt"), given.get("seed"), filled(mode, model, set(inside)))

    @classmethod
    def execute(cls, prompt: str, seed: int, model: dict, **others) -> io.NodeOutput:
        # others: what is still linked to an input that the chosen model does not have.
        mode = mode_of(model["model"])
        values = filled(mode, model, set())
        check(mode, prompt, seed, values)
        graph = GraphBuilder()
        made = mode.build(graph, prompt, seed, values)
        return io.NodeOutput(made, expand=graph.finalize())


class ModelHealth(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9ModelHealth",
            display_name="Model Health",
            category="Xavi9Videos",
            description="Says of Cosmos, LTX-2 and SVD-XT whether they are ready, what is loaded, how much memory is "
            "free, and what to do where something is missing.",
            search_aliases=["health", "status", "check", "cosmos nim", "memory"],
            is_output_node=True,
            inputs=[],
            outputs=[io.String.Output("report", tooltip="The same as text, for Preview as Text.")],
        )

    @classmethod
    def fingerprint_inputs(cls):
        # What was true is not true any more.
        return time.monotonic()

    @classmethod
    async def execute(cls) -> io.NodeOutput:
        text = report(await health())
        return io.NodeOutput(text, ui=ui.PreviewText(text))


NODES = [GenerateVideo, ModelHealth]
