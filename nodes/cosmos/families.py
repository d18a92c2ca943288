"""What each family of Cosmos NIM takes and answers. A further family is one more class here.

Sources: docs.nvidia.com/nim/cosmos (API reference, sampling parameters) for Predict1; NVIDIA/cosmos,
cookbooks/cosmos3/nim (generation.md, api-reference.md) for Cosmos3 2.x.
"""

import logging
import re
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from ..errors import BadSetting, CosmosFamilyUnknown, EmptyPrompt, NotOffered, PromptTooLong

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One video as a node asks for it.

    resolution is the class of the shorter side ("720", "512", "480", "256"), aspect_ratio "16:9" and so on, fps frames
    per second, seed 0..4294967295. An empty negative_prompt means the NIM's own.
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
    prompt_upsampling: bool


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

    timeout_seconds: ClassVar[float]
    sizes: ClassVar[dict[str, dict[str, tuple[int, int]]]]
    frames: ClassVar[dict[str, range]]
    fps: ClassVar[range]
    steps: ClassVar[range]
    guidance_scale: ClassVar[tuple[float, float]]
    model_name: ClassVar[str]
    """A pattern for the model names in /v1/metadata."""
    metadata_key: ClassVar[str | None] = None
    """A key of /v1/metadata that only this family has."""
    request_field: ClassVar[str]
    """A property of the /v1/infer request in /openapi.json that only this family has."""

    def __init_subclass__(cls):
        FAMILIES[cls.__name__.lower()] = cls

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
        raise NotOffered(family=cls.__name__, name=name, given=given, allowed=allowed, nearest=nearest)

    @classmethod
    def check_prompt(cls, prompt: str):
        raise NotImplementedError

    @classmethod
    def text2world(cls, job: Job) -> Request:
        """The request for a video from text alone. Raises what check() raises."""
        raise NotImplementedError


FAMILIES: dict[str, type[Family]] = {}


@cache
def say_not_sent(family: str, field: str):
    log.info("%s has no %s; it is not sent.", family, field)


class Predict1VideoParams(Request):
    height: int
    width: int
    frames_count: int
    frames_per_sec: int


class Predict1Text(Request):
    prompt: str
    negative_prompt: str | None
    prompt_upsampling: bool
    seed: int
    guidance_scale: float
    steps: int
    video_params: Predict1VideoParams


class Predict1(Family):
    """Cosmos-Predict1-7B, x86_64 only; text2world and video2world are two containers."""

    timeout_seconds = 600
    sizes = {"720": {"16:9": (1280, 704), "9:16": (704, 1280), "1:1": (960, 960), "4:3": (960, 704), "3:4": (704, 960)}}
    frames = {"720": range(25, 122)}
    fps = range(12, 41)
    steps = range(1, 51)
    guidance_scale = (1.0, 10.0)
    model_name = r"cosmos-predict1"
    request_field = "video_params"

    @classmethod
    def check_prompt(cls, prompt: str):
        if (words := len(prompt.split())) > 250:
            raise PromptTooLong(given=words, unit="words", family="Predict1", allowed=250)

    @classmethod
    def text2world(cls, job: Job) -> Request:
        cls.check(job)
        width, height = cls.sizes[job.resolution][job.aspect_ratio]
        return Predict1Text(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt.strip() or None,
            prompt_upsampling=job.prompt_upsampling,
            seed=job.seed,
            guidance_scale=job.guidance_scale,
            steps=job.steps,
            video_params=Predict1VideoParams(
                height=height, width=width, frames_count=job.frames, frames_per_sec=job.fps
            ),
        )


class Cosmos3Text(Request):
    model_mode: str
    prompt: str
    negative_prompt: str | None
    resolution: str
    num_frames: int
    fps: float
    num_inference_steps: int
    guidance_scale: float
    seed: int


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
    model_name = r"cosmos3(?!-(generator|reasoner))"
    metadata_key = "model_variant"
    request_field = "model_mode"

    @classmethod
    def check_prompt(cls, prompt: str):
        if len(prompt) > 20_000:
            raise PromptTooLong(given=len(prompt), unit="characters", family="Cosmos3", allowed=20_000)

    @classmethod
    def text2world(cls, job: Job) -> Request:
        cls.check(job)
        if job.prompt_upsampling:
            say_not_sent("Cosmos3", "prompt_upsampling")
        return Cosmos3Text(
            model_mode="text2video",
            prompt=job.prompt,
            negative_prompt=job.negative_prompt.strip() or None,
            resolution=f"{job.resolution}_{job.aspect_ratio.replace(':', '_')}",
            num_frames=job.frames,
            fps=job.fps,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance_scale,
            seed=job.seed,
        )


def family_set(name: str) -> type[Family] | None:
    """The family that COSMOS_FAMILY names, or None for auto. Raises BadSetting."""
    if name.lower() == "auto":
        return None
    if name.lower() not in FAMILIES:
        raise BadSetting(variable="COSMOS_FAMILY", value=name, rule=f"Known are auto, {', '.join(FAMILIES)}")
    return FAMILIES[name.lower()]


def strings_in(value) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for item in value.values() for text in strings_in(item)]
        case list():
            return [text for item in value for text in strings_in(item)]
        case _:
            return []


def infer_properties(openapi: dict) -> set[str]:
    """The property names of the body of POST /v1/infer in an OpenAPI document, its $ref followed."""
    content = openapi["paths"]["/v1/infer"]["post"]["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    found = set()
    for part in [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]:
        if "$ref" in part:
            part = openapi["components"]["schemas"][part["$ref"].rsplit("/", 1)[-1]]
        found.update(part.get("properties", {}))
    return found


def recognise(metadata: dict, openapi: dict, url: str) -> type[Family]:
    """The family of a NIM from its own two descriptions; {} stands for one that it does not have.

    Raises CosmosFamilyUnknown when neither tells.
    """
    names = "\n".join(strings_in(metadata))
    named = [it for it in FAMILIES.values() if re.search(it.model_name, names, re.I) or it.metadata_key in metadata]
    if len(named) == 1:
        return named[0]
    try:
        properties = infer_properties(openapi)
    except (KeyError, TypeError, AttributeError):
        properties = set()
    described = [it for it in FAMILIES.values() if it.request_field in properties]
    if len(described) == 1:
        return described[0]
    found = f"its fields are {', '.join(sorted(properties))}" if properties else "no model name, no list of fields"
    raise CosmosFamilyUnknown(url=url, found=found, allowed=", ".join(FAMILIES))
