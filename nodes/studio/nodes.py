"""The studio's nodes, as the editor shows them."""

import time

from comfy_api.latest import io, ui

from .health import health, report


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


NODES = [ModelHealth]
