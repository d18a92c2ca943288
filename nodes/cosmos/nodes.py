"""The Cosmos nodes, as the editor shows them."""

import time
from dataclasses import dataclass, field

from comfy_api.latest import InputImpl, io

from ..errors import EmptyPrompt
from ..host import paths, progress
from ..settings import cosmos
from .client import Address, Client, Result, run_apart, text2world_address
from .families import Job, family_set

# Read at import, so that a bad setting takes out this room alone and says so at start.
SETTINGS = cosmos()
family_set(SETTINGS.cosmos_family)


@dataclass
class Watch:
    """Called while a job runs: stops it on interrupt, and each second writes on the node what the client is doing."""

    client: Client
    hidden: object
    started: float = field(default_factory=time.monotonic)
    shown: int = -1

    def __call__(self):
        progress.stop_if_interrupted()
        seconds = int(time.monotonic() - self.started)
        if seconds != self.shown:
            self.shown = seconds
            progress.show_text(self.hidden, f"{self.client.doing} - {seconds} s")


async def generate(address: Address, job: Job, hidden) -> Result:
    client = Client(address, SETTINGS)
    watch = Watch(client, hidden)
    making = client.generate(lambda family: family.text2world(job), job.prompt, paths.temp_file(".mp4"))
    result = await run_apart(making, watch)
    megabytes = result.path.stat().st_size / 1e6
    progress.show_text(hidden, f"Done in {time.monotonic() - watch.started:.0f} s, {megabytes:.1f} MB")
    return result


class CosmosText2World(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9CosmosText2World",
            display_name="Cosmos Text to World",
            category="Xavi9Videos/Cosmos",
            description="Makes a video from a text with NVIDIA Cosmos, through a NIM container on your own network.",
            search_aliases=["nvidia cosmos", "nim", "text to video", "t2v"],
            inputs=[
                io.String.Input(
                    "prompt", multiline=True, dynamic_prompts=True, default="", tooltip="The scene, in a few sentences."
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    default="",
                    tooltip="What to avoid. Empty leaves it to the NIM; words in here can trigger its guardrail too.",
                ),
                io.Combo.Input(
                    "aspect_ratio",
                    options=["16:9", "9:16", "1:1", "4:3", "3:4"],
                    default="16:9",
                    tooltip="Shape of the picture; with the resolution it gives the family's own size.",
                ),
                io.Combo.Input(
                    "resolution",
                    options=["720", "512", "480", "256"],
                    default="720",
                    tooltip="Size class. 720 at 16:9 is 1280x704 on Predict1 (its only class) and 1280x720 on Cosmos3, "
                    "which also has 480 and 256.",
                ),
                io.Int.Input(
                    "frames",
                    default=121,
                    min=25,
                    max=397,
                    step=4,
                    tooltip="Predict1: 25 to 121. Cosmos3: 25, 29, 33 ... up to 197 at 720, 297 at 480, 397 at 256.",
                ),
                io.Int.Input(
                    "fps", default=24, min=1, max=60, tooltip="Frames per second. Predict1: 12 to 40. Cosmos3: 1 to 60."
                ),
                io.Int.Input(
                    "steps", default=35, min=1, max=100, tooltip="Denoising steps. Predict1: 1 to 50. Cosmos3: to 100."
                ),
                io.Float.Input(
                    "guidance_scale",
                    default=7.0,
                    min=1.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How closely to follow the prompt. Predict1: 1 to 10. Cosmos3: 1 to 7.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=4294967295,
                    control_after_generate=True,
                    tooltip="The same seed and inputs give the same video.",
                ),
                io.Boolean.Input(
                    "prompt_upsampling",
                    default=True,
                    tooltip="Predict1 only: let the NIM enlarge a short prompt. Not sent to a family that lacks it.",
                ),
            ],
            outputs=[
                io.Video.Output("video", tooltip="The NIM's own file, not re-encoded."),
                io.String.Output("prompt_used", tooltip="The prompt as the NIM used it, enlarged when it says so."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, prompt=None):
        # A linked prompt arrives as None; its text is checked when the node runs.
        return str(EmptyPrompt()) if prompt is not None and not prompt.strip() else True

    @classmethod
    async def execute(cls, **inputs) -> io.NodeOutput:
        result = await generate(text2world_address(SETTINGS), Job(**inputs), cls.hidden)
        return io.NodeOutput(InputImpl.VideoFromFile(str(result.path)), result.prompt)


NODES = [CosmosText2World]
