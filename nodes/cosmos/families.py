"""What each family of Cosmos NIM takes and answers. A further family is one more class here.

Sources: docs.nvidia.com/nim/cosmos (API reference, sampling parameters) for Predict1; NVIDIA/cosmos,
cookbooks/cosmos3/nim (generation.md, api-reference.md) for Cosmos3 2.x; for Predict2.5 the same fields as third parties
transcribed them, and the sizes of the open model (nvidia-cosmos/cosmos-predict2.5, VIDEO_RES_SIZE_INFO).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from comfy_api.latest import Input
from pydantic import BaseModel, ConfigDict

from ..errors import BadSetting, EmptyPrompt, NotOffered, PromptTooLong
from .media import Media, fit_clip, fit_image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One video as a node asks for it.

    resolution is the class of the shorter side ("720", "512", "480", "256"), aspect_ratio "16:9" and so on, fps frames
    per second, seed 0..4294967295. An empty negative_prompt means the NIM's own. The video starts from `image`
    [1, height, width, channels] or `video`, or with neither from the text alone.
    """

    prompt: str
    negative_prompt: str
    aspect_ratio: str
    resolution: str
    frames: int
    fps: int
    steps: int
    guidance_scale: float
    seed: int
    prompt_upsampling: bool = False
    image: Input.Image | None = None
    video: Input.Video | None = None

    @property
    def mode(self) -> str:
        return "text2world" if self.image is None and self.video is None else "video2world"


def shape(aspect_ratio: str) -> float:
    width, height = aspect_ratio.split(":")
    return int(width) / int(height)


class Request(BaseModel):
    """The body of POST /v1/infer: only the family's own fields, because a NIM rejects every other; never a null."""

    model_config = ConfigDict(strict=True, extra="forbid")

    def body(self) -> dict:
        return self.model_dump(exclude_none=True)


class Reply(BaseModel):
    """The reply of POST /v1/infer without its video. Predict1 documents both fields, yet each can be missing."""

    upsampled_prompt: str | None = None
    seed: int | None = None


class Family:
    """One family of NIM: its limits, how to recognise it, and its request for a job.

    sizes: resolution -> aspect ratio -> (width, height) in pixels; frames: resolution -> the counts it makes.
    """

    label: ClassVar[str]
    """The class's name as people write it; in small letters the value of COSMOS_FAMILY."""
    timeout_seconds: ClassVar[float]
    sizes: ClassVar[dict[str, dict[str, tuple[int, int]]]]
    frames: ClassVar[dict[str, range]]
    fps: ClassVar[range]
    steps: ClassVar[range]
    guidance_scale: ClassVar[tuple[float, float]]
    full_clip: ClassVar[bool] = False
    """Whether a conditioning clip needs as many frames as the video."""
    model_name: ClassVar[str]
    """A pattern for the model names in /v1/metadata; its first group, if any, is the one mode of that container."""
    metadata_key: ClassVar[str | None] = None
    """A key of /v1/metadata that only this family has."""
    request_fields: ClassVar[set[str]] = set()
    """Properties of the /v1/infer request in /openapi.json that only this family has together; empty if none are."""

    def __init_subclass__(cls):
        cls.label = cls.__name__.replace("_", ".")
        FAMILIES[cls.label.lower()] = cls

    @classmethod
    def check(cls, job: Job):
        """Raise EmptyPrompt, PromptTooLong or NotOffered when the family cannot make this job."""
        if not job.prompt.strip():
            raise EmptyPrompt()
        cls.check_prompt(job.prompt)
        cls.offer("resolution", job.resolution, sorted(cls.sizes, key=int))
        cls.offer("aspect_ratio", job.aspect_ratio, list(cls.sizes[job.resolution]), size=shape)
        cls.offer("frames", job.frames, cls.frames[job.resolution])
        cls.offer("fps", job.fps, cls.fps)
        cls.offer("steps", job.steps, cls.steps)
        low, high = cls.guidance_scale
        if not low <= job.guidance_scale <= high:
            nearest = low if job.guidance_scale < low else high
            cls.refuse("guidance_scale", job.guidance_scale, f"{low:g} to {high:g}", f"{nearest:g}")

    @classmethod
    def offer(cls, name: str, given: str | int, allowed: list[str] | range, size=int):
        if given not in allowed:
            if isinstance(allowed, list):
                listed = ", ".join(allowed)
            else:
                listed = f"{allowed[0]} to {allowed[-1]}" + (f" in steps of {allowed.step}" if allowed.step > 1 else "")
            cls.refuse(name, given, listed, min(allowed, key=lambda it: abs(size(it) - size(given))))

    @classmethod
    def refuse(cls, name: str, given, allowed: str, nearest):
        raise NotOffered(family=cls.label, name=name, given=given, allowed=allowed, nearest=nearest)

    @classmethod
    def size(cls, job: Job) -> tuple[int, int]:
        """Width and height in pixels of the video for a job that check() lets through."""
        return cls.sizes[job.resolution][job.aspect_ratio]

    @classmethod
    def fit(cls, job: Job, path: Path, poll: Callable[[], None]) -> Media:
        """Write what the job starts from to `path` as the family takes it; what `poll` raises ends the work."""
        if job.image is not None:
            return fit_image(job.image, cls.size(job), path)
        return fit_clip(job.video, cls.size(job), job.fps, job.frames, cls.full_clip, path, poll)

    @classmethod
    def check_prompt(cls, prompt: str):
        """Raise PromptTooLong."""

    @classmethod
    def not_sent(cls, field: str):
        say_not_sent(cls.label, field)

    @classmethod
    def request(cls, job: Job, media: Media | None) -> Request:
        """The request for a job that check() lets through; `media` is its image or clip, fitted."""
        raise NotImplementedError


FAMILIES: dict[str, type[Family]] = {}


@cache
def say_not_sent(family: str, field: str):
    log.info("%s has no %s; it is not sent.", family, field)


class Predict1(Family):
    """Cosmos-Predict1-7B, x86_64 only; text2world and video2world are two containers."""

    timeout_seconds = 600
    sizes = {"720": {"16:9": (1280, 704), "9:16": (704, 1280), "1:1": (960, 960), "4:3": (960, 704), "3:4": (704, 960)}}
    frames = {"720": range(25, 122)}
    fps = range(12, 41)
    steps = range(1, 51)
    guidance_scale = (1.0, 10.0)
    full_clip = True
    model_name = r"cosmos-predict1(?:-\w+-(text2world|video2world))?"
    request_fields = {"video_params"}

    class Body(Request):
        prompt: str
        negative_prompt: str | None
        prompt_upsampling: bool | None
        image: str | None = None
        video: str | None = None
        seed: int
        guidance_scale: float
        steps: int
        video_params: dict[str, int]

    @classmethod
    def check_prompt(cls, prompt: str):
        if (words := len(prompt.split())) > 250:
            raise PromptTooLong(given=words, unit="words", family=cls.label, allowed=250)

    @classmethod
    def request(cls, job: Job, media: Media | None) -> Request:
        width, height = cls.size(job)
        return cls.Body(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt.strip() or None,
            # The video2world container refuses the field, even when it is false.
            prompt_upsampling=None if media else job.prompt_upsampling,
            **({media.kind: media.mark} if media else {}),
            seed=job.seed,
            guidance_scale=job.guidance_scale,
            steps=job.steps,
            video_params={
                "height": height, "width": width, "frames_count": job.frames, "frames_per_sec": job.fps
            },
        )


class Predict2_5(Family):
    """Cosmos-Predict2.5-2B; one container, whose mode follows from what it is given. It has its own frame rate."""

    timeout_seconds = 1800
    sizes = {
        "720": {"16:9": (1280, 704), "9:16": (704, 1280), "1:1": (960, 960), "4:3": (960, 704), "3:4": (704, 960)},
        "512": {"16:9": (640, 384), "9:16": (384, 640), "1:1": (512, 512), "4:3": (640, 512), "3:4": (512, 640)},
        "480": {"16:9": (768, 432), "9:16": (432, 768), "1:1": (480, 480), "4:3": (640, 480), "3:4": (480, 640)},
        "256": {"16:9": (320, 192), "9:16": (192, 320), "1:1": (256, 256), "4:3": (320, 256), "3:4": (256, 320)},
    }
    # No upper limit is known: beyond 93 frames a window slides. This is what the nodes offer.
    frames = dict.fromkeys(sizes, range(25, 398))
    fps = range(1, 61)
    steps = range(1, 51)
    guidance_scale = (1.0, 20.0)
    model_name = r"cosmos-predict2[._]5"
    request_fields = {"num_output_frames", "video"}

    class Body(Request):
        prompt: str
        negative_prompt: str | None
        image: str | None = None
        video: str | None = None
        resolution: str
        num_output_frames: int
        steps: int
        guidance_scale: float
        seed: int

    @classmethod
    def request(cls, job: Job, media: Media | None) -> Request:
        cls.not_sent("fps")
        if job.prompt_upsampling:
            cls.not_sent("prompt_upsampling")
        return cls.Body(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt.strip() or None,
            **({media.kind: media.data_url} if media else {}),
            resolution=resolution_key(job),
            num_output_frames=job.frames,
            steps=job.steps,
            guidance_scale=job.guidance_scale,
            seed=job.seed,
        )


class Cosmos3(Family):
    """Cosmos3 2.x, amd64 and arm64 (a DGX Spark runs it); one container for every mode."""

    timeout_seconds = 1800
    sizes = {
        "720": {"16:9": (1280, 720), "9:16": (720, 1280), "1:1": (960, 960), "4:3": (1104, 832), "3:4": (832, 1104)},
        "480": {"16:9": (832, 480), "9:16": (480, 832), "1:1": (640, 640), "4:3": (736, 544), "3:4": (544, 736)},
        "256": {"16:9": (320, 192), "9:16": (192, 320), "1:1": (256, 256), "4:3": (320, 256), "3:4": (256, 320)},
    }
    frames = {"720": range(25, 198, 4), "480": range(25, 298, 4), "256": range(25, 398, 4)}
    fps = range(1, 61)
    steps = range(1, 101)
    guidance_scale = (1.0, 7.0)
    # cosmos3-generator 1.x has other field names, cosmos3-reasoner makes no video.
    model_name = r"cosmos3(?!-(?:generator|reasoner))"
    metadata_key = "model_variant"
    request_fields = {"model_mode"}
    modes = {None: "text2video", "image": "image2video", "video": "video2video"}
    own_sampling: ClassVar[bool] = False
    """Whether the model has a fixed number of steps and no guidance of the request's."""

    class Body(Request):
        model_mode: str
        prompt: str
        negative_prompt: str | None
        input_reference: str | None
        condition_frame_indexes_vision: list[int] | None = None
        condition_video_keep: str | None = None
        resolution: str
        num_frames: int
        fps: float
        num_inference_steps: int | None
        guidance_scale: float | None
        seed: int

    @classmethod
    def check_prompt(cls, prompt: str):
        if len(prompt) > 20_000:
            raise PromptTooLong(given=len(prompt), unit="characters", family=cls.label, allowed=20_000)

    @classmethod
    def request(cls, job: Job, media: Media | None) -> Request:
        if job.prompt_upsampling:
            cls.not_sent("prompt_upsampling")
        conditions = {}
        if media and media.kind == "video":
            # Two latent frames are five pictures of the clip: the first, and four more.
            indexes = [0, 1] if media.frames >= 5 else [0]
            conditions = {"condition_frame_indexes_vision": indexes, "condition_video_keep": "first"}
        sampling = {"num_inference_steps": job.steps, "guidance_scale": job.guidance_scale}
        if cls.own_sampling:
            cls.not_sent("steps or guidance_scale")
            sampling = dict.fromkeys(sampling)
        return cls.Body(
            model_mode=cls.modes[media and media.kind],
            prompt=job.prompt,
            negative_prompt=job.negative_prompt.strip() or None,
            input_reference=media and media.data_url,
            **conditions,
            resolution=resolution_key(job),
            num_frames=job.frames,
            fps=job.fps,
            **sampling,
            seed=job.seed,
        )


class Cosmos3FourStep(Cosmos3):
    """Cosmos3 started with a NIM_MODEL_VARIANT that ends in -4step."""

    model_name = r"super-\w+-4step"
    metadata_key = None
    request_fields = set()
    own_sampling = True


def resolution_key(job: Job) -> str:
    return f"{job.resolution}_{job.aspect_ratio.replace(':', '_')}"


def family_set(name: str) -> type[Family] | None:
    """The family that COSMOS_FAMILY names, or None for auto. Raises BadSetting."""
    if name.lower() == "auto":
        return None
    if name.lower() not in FAMILIES:
        raise BadSetting(variable="COSMOS_FAMILY", value=name, rule=f"known are auto, {', '.join(FAMILIES)}")
    return FAMILIES[name.lower()]
