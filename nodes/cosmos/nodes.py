"""The Cosmos nodes, as the editor shows them."""

import time
from dataclasses import dataclass, field

from comfy_api.latest import InputImpl, io

from ..checks import check_prompt, said
from ..host import paths, progress
from ..inputs import ABSENT
from ..settings import cosmos
from .client import Client, address_of, run_apart
from .families import Job, family_set
from .media import check_media, check_one

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


async def generate(job: Job, hidden) -> io.NodeOutput:
    client = Client(address_of(job.mode, SETTINGS), SETTINGS)
    watch = Watch(client, hidden)
    result = await run_apart(client.generate(job, paths.temp_file(".mp4")), watch)
    megabytes = result.path.stat().st_size / 1e6
    progress.show_text(hidden, f"Done in {time.monotonic() - watch.started:.0f} s, {megabytes:.1f} MB")
    return io.NodeOutput(InputImpl.VideoFromFile(str(result.path)), result.prompt)


def what_to_make() -> list[io.Input]:
    """The inputs that every mode of Cosmos has, in their order."""
    return [
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
            tooltip="Shape of the picture. With the resolution it gives the size, which each family has its own of.",
        ),
        io.Combo.Input(
            "resolution",
            options=["720", "512", "480", "256"],
            default="720",
            tooltip="Size class. 720 at 16:9 is 1280x720 on Cosmos3, 1280x704 on Predict1 and Predict2.5. Cosmos3 also "
            "has 480 and 256, Predict2.5 all four.",
        ),
        io.Int.Input(
            "frames",
            default=121,
            min=25,
            max=397,
            step=4,
            tooltip="Cosmos3: 25, 29, 33 ... up to 197 at 720, 297 at 480, 397 at 256. Predict1: 25 to 121. "
            "Predict2.5: 25 to 397.",
        ),
        io.Int.Input(
            "fps",
            default=24,
            min=1,
            max=60,
            tooltip="Frames per second. Cosmos3: 1 to 60. Predict1: 12 to 40. Predict2.5 has its own.",
        ),
        io.Int.Input(
            "steps",
            default=35,
            min=1,
            max=100,
            tooltip="Denoising steps. Cosmos3: up to 100. Predict1 and Predict2.5: up to 50.",
        ),
        io.Float.Input(
            "guidance_scale",
            default=7.0,
            min=1.0,
            max=10.0,
            step=0.1,
            tooltip="How closely to follow the prompt. Cosmos3: 1 to 7. Predict1 and Predict2.5: 1 to 10.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=4294967295,
            control_after_generate=True,
            tooltip="The same seed and inputs give the same video on the same NIM.",
        ),
    ]


def what_is_made() -> list[io.Output]:
    return [
        io.Video.Output("video", tooltip="The NIM's own file, not re-encoded."),
        io.String.Output("prompt_used", tooltip="The prompt as the NIM used it: enlarged, if the NIM enlarged it."),
    ]


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
                *what_to_make(),
                io.Boolean.Input(
                    "prompt_upsampling",
                    default=True,
                    tooltip="Predict1 only: let the NIM enlarge a short prompt. Not sent to a family that lacks it.",
                ),
            ],
            outputs=what_is_made(),
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, prompt=None):
        return said(check_prompt, prompt)

    @classmethod
    async def execute(cls, **inputs) -> io.NodeOutput:
        return await generate(Job(**inputs), cls.hidden)


class CosmosVideo2World(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9CosmosVideo2World",
            display_name="Cosmos Video to World",
            category="Xavi9Videos/Cosmos",
            description="Sets a picture in motion, or goes on from a clip, with NVIDIA Cosmos, through a NIM container "
            "on your own network. Connect an image or a video.",
            search_aliases=["nvidia cosmos", "nim", "image to video", "video to video", "i2v", "v2v", "image2world"],
            inputs=[
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The first picture. It is cropped to the shape of the video; transparency becomes black.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="The clip to start from; its beginning counts, so trim it (Video Slice) to the part that "
                    "you want. It is fitted on black to the video's size and rate, without sound.",
                ),
                *what_to_make(),
            ],
            outputs=what_is_made(),
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, prompt=None, image=ABSENT, video=ABSENT):
        # A linked input arrives as None, one that is absent not at all. prompt is named so that the answer has an input
        # to stand on.
        answer = said(check_prompt, prompt)
        return answer if answer is not True else said(check_one, image is not ABSENT, video is not ABSENT)

    @classmethod
    async def execute(cls, **inputs) -> io.NodeOutput:
        job = Job(**inputs)
        check_media(job.image, job.video)
        return await generate(job, cls.hidden)


NODES = [CosmosText2World, CosmosVideo2World]
