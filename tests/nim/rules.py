"""What a NIM checks before it computes: the request against schema.json, in the words of pydantic and FastAPI."""

import base64
import io
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import av

SCHEMA = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="ascii"))
FAMILIES = SCHEMA["families"]

TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list, "object": dict}
MESSAGES = {
    "missing": "Field required",
    "extra_forbidden": "Extra inputs are not permitted",
    "object_type": "Input should be a valid dictionary or object to extract fields from",
    "int_type": "Input should be a valid integer",
    "float_type": "Input should be a valid number",
    "str_type": "Input should be a valid string",
    "bool_type": "Input should be a valid boolean",
    "list_type": "Input should be a valid list",
    "finite_number": "Input should be a finite number",
    "literal_error": "Input should be {}",
    "greater_than_equal": "Input should be greater than or equal to {}",
    "less_than_equal": "Input should be less than or equal to {}",
    "string_too_short": "String should have at least {} character",
    "string_too_long": "String should have at most {} characters",
    "value_error": "Value error, {}",
}
PYDANTIC_NAMES = {"str_type": "string_type", "object_type": "model_attributes_type"}


class Refusal(Exception):
    """A request that the NIM turns down: the HTTP status, and pydantic's list of errors or one text."""

    def __init__(self, status: int, errors: list[dict] | str):
        super().__init__(status, errors)
        self.status, self.errors = status, errors


@dataclass(frozen=True)
class Job:
    """What an accepted request asks for; seed is the NIM's own choice where the request has none.

    media is the decoded bytes of its image or clip, media_kind "image" or "video"; both None without.
    """

    prompt: str
    seed: int
    width: int
    height: int
    frames: int
    fps: float
    media: bytes | None
    media_kind: str | None
    upsample: bool = False


def error(kind: str, loc: list, value: object, limit: object = None) -> dict:
    """One entry of pydantic's error list."""
    return {"type": PYDANTIC_NAMES.get(kind, kind), "loc": loc, "msg": MESSAGES[kind].format(limit), "input": value}


def check(family: str, mode: str, body: object, variant: str = "nano") -> Job:
    """The job that the parsed JSON `body` of POST /v1/infer asks for.

    `mode` is Predict1's container, `variant` Cosmos3's model; unused elsewhere. Raises Refusal exactly as the NIM would
    answer.
    """
    spec = FAMILIES[family]
    fields = spec["fields"]
    if not isinstance(body, dict):
        raise Refusal(422, [error("object_type", ["body"], body)])
    if family == "cosmos3":
        mode = _cosmos3_mode(spec, body, variant)
        lacking = [name for part, names in spec["variants"]["lacks"].items() if part in variant for name in names]
        fields = {name: field for name, field in fields.items() if name not in lacking}
    if family == "predict2_5":
        inferred = [key for name, field in fields.items() if name in body for key in field.get("media", {})]
        mode = inferred[0] if inferred else "text2world"
    _raise(_field_errors(fields, body, mode, ["body"]))
    return JOBS[family](spec, body, *_media(spec, mode, body))


def _raise(errors: list[dict]) -> None:
    if errors:
        raise Refusal(422, errors)


def _cosmos3_mode(spec: dict, body: dict, variant: str) -> str:
    # Only the mode says which fields exist, so a bad one is the whole answer.
    given = {"model_mode": body["model_mode"]} if "model_mode" in body else {}
    _raise(_field_errors({"model_mode": spec["fields"]["model_mode"]}, given, spec["modes"][0], ["body"]))
    mode = body["model_mode"]
    for start, modes in spec["variants"]["modes"].items():
        if variant.startswith(start) and mode not in modes:
            raise Refusal(422, [error("literal_error", ["body", "model_mode"], mode, ", ".join(map(repr, modes)))])
    return mode


def _field_errors(fields: dict, value: dict, mode: str, loc: list) -> list[dict]:
    known = {name: field for name, field in fields.items() if mode in field.get("modes", [mode])}
    errors = []
    for name, field in known.items():
        if name in value:
            errors += _value_errors(field, value[name], mode, [*loc, name])
        elif mode in field["required"]:
            errors.append(error("missing", [*loc, name], value))
    return errors + [error("extra_forbidden", [*loc, name], value[name]) for name in value if name not in known]


def _value_errors(field: dict, value: object, mode: str, loc: list) -> list[dict]:
    kind = field["type"]
    if kind == "object" and isinstance(value, dict):
        return _field_errors(field["fields"], value, mode, loc)
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
        return [error(f"{kind}_type", loc, value)]
    if kind == "float" and not math.isfinite(value):
        return [error("finite_number", loc, str(value))]
    if "choices" in field and value not in field["choices"]:
        return [error("literal_error", loc, value, ", ".join(map(repr, field["choices"])))]
    if kind == "list":
        return [e for i, item in enumerate(value) for e in _value_errors(field["items"], item, mode, [*loc, i])]
    size = len(value) if kind == "str" else value
    low, high = ("string_too_short", "string_too_long") if kind == "str" else ("greater_than_equal", "less_than_equal")
    if size < field.get("min", size):
        return [error(low, loc, value, field["min"])]
    if size > field.get("max", size):
        return [error(high, loc, value, field["max"])]
    return []


def _predict1_job(spec: dict, body: dict, media: bytes | None, kind: str | None) -> Job:
    params = {name: field["default"] for name, field in spec["fields"]["video_params"]["fields"].items()}
    params |= body.get("video_params", {})
    size, sizes = [params["width"], params["height"]], spec["sizes"]
    if any(side % sizes["multiple_of"] for side in size):
        raise Refusal(400, f"width and height must be multiples of {sizes['multiple_of']}, got {size[0]}x{size[1]}")
    if size not in sizes["allowed"]:
        names = ", ".join(f"{width}x{height}" for width, height in sizes["allowed"])
        raise Refusal(400, f"Unsupported resolution {size[0]}x{size[1]}, supported resolutions are {names}")
    asked = *size, params["frames_count"], params["frames_per_sec"]
    if kind == "video":
        _check_clip(spec["clip"], asked, media)
    upsample = body.get("prompt_upsampling", media is None)
    return Job(body.get("prompt", ""), _seed(body), *asked, media, kind, upsample)


def _predict2_5_job(spec: dict, body: dict, media: bytes | None, kind: str | None) -> Job:
    size = _size(spec, body.get("resolution", spec["fields"]["resolution"]["default"]))
    frames = body.get("num_output_frames", spec["fields"]["num_output_frames"]["default"])
    return Job(body.get("prompt", ""), _seed(body), *size, frames, spec["fps"]["of_every_reply"], media, kind)


def _cosmos3_job(spec: dict, body: dict, media: bytes | None, kind: str | None) -> Job:
    fields, rule = spec["fields"], spec["frames"]
    resolution = body.get("resolution", fields["resolution"]["default"])
    frames = body.get("num_frames", fields["num_frames"]["default"])
    tier = resolution.partition("_")[0]
    if not rule["min"] <= frames <= rule["max"][tier]:
        text = f"num_frames must be between {rule['min']} and {rule['max'][tier]} at resolution {resolution}"
        raise Refusal(422, [error("value_error", ["body", "num_frames"], frames, text)])
    if frames % rule["step"] != rule["offset"]:
        raise Refusal(422, [error("value_error", ["body", "num_frames"], frames, "num_frames must be 1 + 4k")])
    latents = 1 + (frames - 1) // rule["step"]
    indexes = body.get("condition_frame_indexes_vision", [])
    if any(index >= latents for index in indexes):
        text = f"the largest index must be below the {latents} latent frames of the output"
        raise Refusal(422, [error("value_error", ["body", "condition_frame_indexes_vision"], indexes, text)])
    fps = body.get("fps", fields["fps"]["default"])
    return Job(body["prompt"], _seed(body), *_size(spec, resolution), frames, fps, media, kind)


JOBS = {"predict1": _predict1_job, "predict2_5": _predict2_5_job, "cosmos3": _cosmos3_job}


def _size(spec: dict, resolution: str) -> list[int]:
    tier, _, aspect = resolution.partition("_")
    return spec["sizes"][tier][aspect or "16_9"]


def _seed(body: dict) -> int:
    return body.get("seed", random.getrandbits(32))


def _media(spec: dict, mode: str, body: dict) -> tuple[bytes | None, str | None]:
    """The bytes of the conditioning image or clip, which FFmpeg can decode, and which of them it is; or None twice."""
    given = [name for name, field in spec["fields"].items() if "media" in field and name in body]
    if len(given) > 1 or (not given and mode in spec["conditioned"]["modes"]):
        raise Refusal(422, [error("value_error", ["body"], body, f"one of image and video, but got {len(given)}")])
    if not given:
        return None, None
    [name] = given
    field, text = spec["fields"][name], body[name]
    kind = field["media"][mode]

    def refuse(reason: str) -> Refusal:
        return Refusal(422, [error("value_error", ["body", name], text[:80], reason)])

    if not text.strip():
        raise refuse(f"an {kind} is required")
    if text.startswith(("http://", "https://")):
        raise refuse("URL inputs are disabled")
    if ("data_url" if text.startswith("data:") else "raw") not in field["forms"]:
        raise refuse(f"the {kind} must be sent as {field['forms'][0]}")
    if kind == "image" and len(text) > field.get("max_image_length", math.inf):
        raise refuse(f"the image is longer than {field['max_image_length']} characters")
    payload = text
    if text.startswith("data:"):
        head, _, payload = text.partition(";base64,")
        if not head.startswith(f"data:{kind}/"):
            raise refuse(f"not a base64 {kind}")
    try:
        data = base64.b64decode(payload, validate=True)
        with av.open(io.BytesIO(data)) as container:
            pix_fmt = next(container.decode(video=0)).format.name
            still = container.format.name.endswith("_pipe")
    except (ValueError, av.FFmpegError, StopIteration, IndexError) as exception:
        raise refuse(f"cannot decode the {kind}: {type(exception).__name__}") from exception
    if still != (kind == "image"):
        raise refuse(f"not {kind} data")
    if kind == "video" and pix_fmt in SCHEMA["clips"]["pix_fmts_refused"]:
        raise refuse(f"UnsupportedVideoFormat: {pix_fmt!r}")
    if kind == "video" and len(data) > field.get("max_video_bytes", math.inf):
        raise refuse(f"the video is larger than {field['max_video_bytes']} bytes")
    return data, kind


def _check_clip(rule: dict, asked: tuple[int, int, int, int], data: bytes) -> None:
    """Raises Refusal for a clip that is not of the width, height, frame count and frames per second asked for."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        frames = sum(packet.size > 0 for packet in container.demux(stream))
        found = stream.width, stream.height, frames, stream.average_rate, stream.codec.canonical_name
        found += stream.format.name, len(container.streams.audio)
    expected = *asked, rule["codec"], rule["pix_fmt"], rule["audio_tracks"]
    if found != expected:
        words = "{}x{} x {} frames x {}fps, {} {}, {} audio tracks".format
        raise Refusal(500, f"TorchScript autoencoder expects exactly {words(*expected)}; got {words(*found)}")


def openapi(family: str, mode: str) -> dict:
    """FastAPI's document for the family, in which POST /v1/infer refers to the schema of its request."""
    spec = FAMILIES[family]
    modes = [mode] if spec["mode_from"] == "container" else spec["modes"]
    components: dict = {}
    _component(components, "InferRequest", spec["fields"], modes)
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}}}
    body = {"content": content, "required": True}
    operation = {"summary": "Infer", "requestBody": body, "responses": {"200": {"description": "Successful Response"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "NVIDIA NIM", "version": "1.0.0"},
        "paths": {"/v1/infer": {"post": operation}},
        "components": {"schemas": components},
    }


def _component(components: dict, name: str, fields: dict, modes: list[str]) -> None:
    words = {"int": "integer", "float": "number", "str": "string", "bool": "boolean", "list": "array"}
    properties = {}
    for key, field in fields.items():
        if not set(modes) & set(field.get("modes", modes)):
            continue
        if field["type"] == "object":
            _component(components, "VideoParams", field["fields"], modes)
            properties[key] = {"$ref": "#/components/schemas/VideoParams"}
        else:
            properties[key] = {"type": words[field["type"]]}
    required = [key for key in properties if set(modes) <= set(fields[key]["required"])]
    components[name] = {"type": "object", "additionalProperties": False, "properties": properties, "required": required}
