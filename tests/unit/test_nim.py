"""The stand-in for NVIDIA's NIM must be as strict as the NIM: otherwise the client's tests prove nothing."""

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import av
import httpx
import numpy as np
import pytest
from nim.loopback import FAULTS, LoopbackNIM
from nim.picture import video

COSMOS3 = {
    "model_mode": "text2video",
    "prompt": "a red kite",
    "resolution": "256",
    "num_frames": 25,
    "fps": 24.0,
    "seed": 7,
}
PARAMS = {"height": 704, "width": 960, "frames_count": 25, "frames_per_sec": 24}
PREDICT1 = {"prompt": "a red kite", "prompt_upsampling": True, "seed": 7, "steps": 35, "video_params": PARAMS}
PREDICT2_5 = {"prompt": "a red kite", "resolution": "256", "num_output_frames": 25, "seed": 7}
BODIES = {"predict1": PREDICT1, "predict2_5": PREDICT2_5, "cosmos3": COSMOS3}
GONE = ...
CLIENT = httpx.Client(timeout=20)


@pytest.fixture(scope="module")
def server():
    with LoopbackNIM() as running, CLIENT:
        yield running


@pytest.fixture
def nim(server):
    server.reset()
    return server


def infer(nim, body):
    return CLIENT.post(f"{nim.url}/v1/infer", json=body)


def changed(body, change):
    return {name: value for name, value in (body | change).items() if value is not GONE}


def decoded(reply):
    return base64.b64decode(reply.json()["b64_video"], validate=True)


def wait_for(condition, seconds=2.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)


# What is accepted


@pytest.mark.parametrize(
    ("resolution", "frames", "fps", "size"),
    [("256", 25, 24.0, (320, 192)), ("256_3_4", 29, 30000 / 1001, (256, 320)), ("256_1_1", 25, 10, (256, 256))],
)
def test_cosmos3_video_is_what_was_asked(nim, resolution, frames, fps, size):
    reply = infer(nim, COSMOS3 | {"resolution": resolution, "num_frames": frames, "fps": fps})
    assert reply.status_code == 200
    assert set(reply.json()) == {"b64_video", "action"}
    check_video(decoded(reply), size, frames, Fraction(fps).limit_denominator(100_000))
    assert (nim.requests[0].outcome, nim.requests[0].status, nim.requests[0].body["fps"]) == ("replied", 200, fps)


def test_predict1_video_is_what_was_asked(nim):
    nim.family = "predict1"
    reply = infer(nim, PREDICT1)
    assert reply.status_code == 200
    assert reply.json()["seed"] == 7
    assert "a red kite" in reply.json()["upsampled_prompt"] != "a red kite"
    check_video(decoded(reply), (960, 704), 25, 24)
    assert set(infer(nim, PREDICT1 | {"prompt_upsampling": False}).json()) == {"b64_video", "seed"}


def check_video(data, size, frames, fps):
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert "mp4" in container.format.name
        assert (stream.codec_context.name, stream.width, stream.height) == ("vp9", *size)
        assert (stream.frames, stream.average_rate) == (frames, fps)
        codec = stream.codec_context
        assert [codec.color_primaries, codec.color_trc, codec.colorspace] == [1, 1, 1]
        pictures = list(container.decode(stream))
    assert len(pictures) == frames
    assert [i for i, picture in enumerate(pictures) if picture.key_frame] == [0, 24]
    planes = [picture.to_ndarray(format="gray").astype(int) for picture in pictures]
    assert planes[0].std() > 10
    moved = [np.abs(b - a).max() for a, b in zip(planes, planes[1:])]
    assert min(moved) > 0
    assert np.abs(planes[-1] - planes[0]).mean() > 1


def test_picture_depends_on_prompt_and_seed_alone():
    arguments = (320, 192, 25, 24.0)
    first = video("a", 1, *arguments)
    video.cache_clear()
    assert video("a", 1, *arguments) == first
    assert len({first, video("b", 1, *arguments), video("a", 2, *arguments)}) == 3


def test_without_a_seed_the_nim_chooses(nim):
    bodies = [infer(nim, changed(COSMOS3, {"seed": GONE})) for _ in range(2)]
    assert decoded(bodies[0]) != decoded(bodies[1])


ACCEPTED = {
    "cosmos3": (
        COSMOS3,
        [
            {},
            {"negative_prompt": ""},
            {"fps": 24},
            {"guidance_scale": 7, "num_inference_steps": 100, "flow_shift": -1.5},
            {"prompt": "x" * 20_000, "seed": 2**40},
        ],
    ),
    "predict1": (
        PREDICT1,
        [
            {},
            {"guidance_scale": 1, "steps": 50, "seed": 4294967295, "negative_prompt": "fog"},
            {"prompt": "word " * 400},
            {"prompt_upsampling": GONE},
        ],
    ),
}


@pytest.mark.parametrize(
    ("family", "body"), [(family, changed(base, c)) for family, (base, cs) in ACCEPTED.items() for c in cs]
)
def test_accepted(nim, family, body):
    nim.family = family
    assert infer(nim, body).status_code == 200


# What is refused

COSMOS3_REFUSED = [
    *[{"model_mode": value} for value in (GONE, None, 1, "text2world", "text2image", "", ["text2video"])],
    *[{"prompt": value} for value in (GONE, None, "", 5, "x" * 20_001)],
    *[{"negative_prompt": value} for value in (None, 5, "x" * 20_001)],
    *[{"seed": value} for value in (None, -1, 1.0, "1", True)],
    *[{"guidance_scale": value} for value in (None, 0.9, 7.1, "6", True)],
    *[{"num_inference_steps": value} for value in (None, 0, 101, 35.0, "35", True)],
    *[{"resolution": value} for value in (None, 720, "1280x720", "512", "720_21_9", "")],
    *[{"num_frames": value} for value in (None, 21, 26, 401, 25.0, "25", True)],
    {"resolution": "480", "num_frames": 301},
    {"resolution": "720_9_16", "num_frames": 201},
    *[{"fps": value} for value in (None, 0.5, 61, "24", True)],
    *[{"flow_shift": value} for value in (None, "3")],
    *[
        {name: 1}
        for name in (
            "steps",
            "image",
            "video",
            "num_output_frames",
            "video_params",
            "model",
            "width",
            "prompt_upsampling",
        )
    ],
    *[{"input_reference": "aaaa"}, {"condition_video_keep": "first"}, {"condition_frame_indexes_vision": [0]}],
]


@pytest.mark.parametrize("change", COSMOS3_REFUSED, ids=lambda change: str(change)[:60])
def test_cosmos3_refuses(nim, change):
    reply = infer(nim, changed(COSMOS3, change))
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "code"} and error["code"] == 422
    assert list(change)[-1] in error["message"]
    assert nim.requests[0].outcome == "rejected"


def param(**change):
    return {"video_params": changed(PARAMS, change)}


PREDICT1_REFUSED = [
    *[
        ({"prompt": value}, kind)
        for value, kind in [(GONE, "missing"), (None, "string_type"), ("", "string_too_short")]
    ],
    ({"negative_prompt": None}, "string_type"),
    ({"negative_prompt": ""}, "string_too_short"),
    *[({"prompt_upsampling": value}, "bool_type") for value in (None, 1, "true")],
    *[({"seed": value}, "int_type") for value in (None, 1.0, "1", True)],
    ({"seed": -1}, "greater_than_equal"),
    ({"seed": 2**32}, "less_than_equal"),
    *[({"steps": value}, "int_type") for value in (None, 35.0, "35", True)],
    ({"steps": 0}, "greater_than_equal"),
    ({"steps": 51}, "less_than_equal"),
    ({"guidance_scale": "7"}, "float_type"),
    ({"guidance_scale": 0.5}, "greater_than_equal"),
    ({"guidance_scale": 10.5}, "less_than_equal"),
    ({"video_params": None}, "model_attributes_type"),
    (param(fps=24), "extra_forbidden"),
    (param(width=960.0), "int_type"),
    (param(height=704.0), "int_type"),
    (param(frames_count=24), "greater_than_equal"),
    (param(frames_count=122), "less_than_equal"),
    (param(frames_count="25"), "int_type"),
    (param(frames_per_sec=11), "greater_than_equal"),
    (param(frames_per_sec=41), "less_than_equal"),
    (param(frames_per_sec=24.0), "int_type"),
    *[
        ({name: 1}, "extra_forbidden")
        for name in (
            "model",
            "width",
            "num_frames",
            "fps",
            "resolution",
            "model_mode",
            "num_inference_steps",
            "image",
            "video",
        )
    ],
]


@pytest.mark.parametrize(("change", "kind"), PREDICT1_REFUSED, ids=lambda value: str(value)[:60])
def test_predict1_refuses(nim, change, kind):
    nim.family = "predict1"
    reply = infer(nim, changed(PREDICT1, change))
    assert reply.status_code == 422
    [error] = reply.json()["detail"]
    assert error["type"] == kind
    assert error["loc"][:2] == ["body", next(iter(change))]
    assert set(error) == {"type", "loc", "msg", "input"}


def test_unknown_field_is_refused_in_fastapis_words(nim):
    nim.family, nim.mode = "predict1", "video2world"
    reply = infer(nim, PREDICT1)
    assert reply.json() == {
        "detail": [
            {
                "type": "extra_forbidden",
                "loc": ["body", "prompt_upsampling"],
                "msg": "Extra inputs are not permitted",
                "input": True,
            }
        ]
    }


@pytest.mark.parametrize("size", [(1280, 720), (1284, 704), (703, 1280), (320, 192), (0, 704), (-1280, -704)])
def test_predict1_bad_size_is_400(nim, size):
    nim.family = "predict1"
    reply = infer(nim, PREDICT1 | param(width=size[0], height=size[1]))
    assert reply.status_code == 400
    assert isinstance(reply.json()["detail"], str)


@pytest.mark.parametrize("family", BODIES)
def test_body_must_be_a_json_object(nim, family):
    nim.family = family
    url, json_type = f"{nim.url}/v1/infer", {"Content-Type": "application/json"}
    assert CLIENT.post(url, content=b'{"prompt": ', headers=json_type).status_code == 400
    assert CLIENT.post(url, content=b"[1]", headers=json_type).status_code == 422
    assert CLIENT.post(url, content=b'{"prompt": "x"}', headers={"Content-Type": "text/plain"}).status_code == 422
    assert CLIENT.post(url, content=b'{"fps": NaN, "model_mode": "text2video"}', headers=json_type).status_code == 422


# What tells the families apart


def test_endpoints_of_predict1(nim):
    nim.family = "predict1"
    get = lambda path: CLIENT.get(nim.url + path)  # noqa: E731
    assert get("/v1/health/ready").json() == {"description": "Triton readiness check", "status": "ready"}
    assert "cosmos-predict1-7b-text2world" in get("/v1/metadata").text
    nim.mode = "video2world"
    assert "cosmos-predict1-7b-video2world" in get("/v1/metadata").text
    assert CLIENT.post(f"{nim.url}/v1/generate", json=PREDICT1).status_code == 404
    for path in ("/v1/version", "/openapi.json", "/v1/models", "/v1/generate"):
        assert (get(path).status_code, get(path).json()) == (404, {"detail": "Not Found"})
    assert {get(f"/v1/{name}").status_code for name in ("health/live", "license", "manifest", "metrics")} == {200}
    assert get("/v1/infer").status_code == 405
    assert nim.seen[0] == ("GET", "/v1/health/ready") and not nim.requests


def test_endpoints_of_predict2_5(nim):
    nim.family = "predict2_5"
    get = lambda path: CLIENT.get(nim.url + path)  # noqa: E731
    assert get("/v1/health/ready").json() == {"description": "Triton readiness check", "status": "ready"}
    assert "cosmos-predict2.5-2b" in get("/v1/metadata").text
    assert {get(f"/v1/{name}").status_code for name in ("health/live", "license", "manifest", "metrics")} == {200}
    for path in ("/v1/version", "/openapi.json", "/v1/models"):
        assert (get(path).status_code, get(path).json()) == (404, {"detail": "Not Found"})
    nim.openapi = True
    schema = request_schema(get("/openapi.json").json())
    assert {"num_output_frames", "image", "video"} <= set(schema["properties"]) and schema["required"] == []


def test_endpoints_of_cosmos3(nim):
    get = lambda path: CLIENT.get(nim.url + path)  # noqa: E731
    ready = {"object": "health.response", "message": "Service is ready", "status": "ready"}
    assert get("/v1/health/ready").json() == ready
    assert get("/v1/metadata").json()["model_type"] == "generator"
    for variant in ("nano", "super-i2v-4step"):
        nim.variant = variant
        assert get("/v1/metadata").json()["model_variant"] == variant
    assert get("/v1/version").status_code == get("/v1/models").status_code == 200
    assert get("/v1/generate").json()["error"]["code"] == get("/v1/generate").status_code == 404


def request_schema(document):
    operation = document["paths"]["/v1/infer"]["post"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return document["components"]["schemas"][reference.rpartition("/")[2]]


def test_openapi_tells_what_metadata_does_not(nim):
    get = lambda path: CLIENT.get(nim.url + path)  # noqa: E731
    nim.metadata, nim.openapi = "anonymous", True
    assert not {"model_type", "model_variant", "inference_endpoint", "modelInfo"} & set(get("/v1/metadata").json())
    schema = request_schema(get("/openapi.json").json())
    assert {"model_mode", "num_frames", "input_reference"} <= set(schema["properties"])
    assert set(schema["required"]) == {"model_mode", "prompt"}
    nim.family, nim.metadata = "predict1", "missing"
    assert get("/v1/metadata").status_code == 404
    properties = request_schema(get("/openapi.json").json())["properties"]
    assert {"video_params", "prompt_upsampling"} <= set(properties) and "image" not in properties
    nim.family, nim.openapi = "cosmos3", False
    assert get("/openapi.json").status_code == 404


# Time


def test_jobs_are_computed_one_at_a_time(nim):
    nim.job_seconds = 0.3
    with ThreadPoolExecutor(3) as pool:
        assert {reply.status_code for reply in pool.map(lambda _: infer(nim, COSMOS3), range(3))} == {200}
    began = sorted(record.began for record in nim.requests)
    assert all(later - earlier >= 0.29 for earlier, later in zip(began, began[1:]))
    assert max(record.started for record in nim.requests) < min(record.ended for record in nim.requests)


@pytest.mark.parametrize("fault", [None, "silence", "stall"])
def test_a_client_that_leaves_is_noticed(nim, fault):
    nim.fault, nim.job_seconds = fault, 0 if fault else 30
    before = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        CLIENT.post(f"{nim.url}/v1/infer", json=COSMOS3, timeout=0.5)
    wait_for(lambda: nim.requests[0].ended)
    assert nim.requests[0].outcome == "disconnected"
    assert 0.4 < nim.requests[0].ended - before < 0.8
    nim.reset()
    assert infer(nim, COSMOS3).status_code == 200


def test_a_taken_port_is_an_error(nim):
    with pytest.raises(OSError, match="in use"):
        LoopbackNIM(port=int(nim.url.rpartition(":")[2])).__enter__()


# Faults


def test_an_unknown_fault_is_an_error(nim):
    with pytest.raises(ValueError, match="no fault 'silense'"):
        nim.fault = "silense"


@pytest.mark.parametrize("family", BODIES)
@pytest.mark.parametrize("fault", ["not_ready", "starting", "ready_but_not_status"])
def test_faults_of_health(nim, family, fault):
    nim.family, nim.fault = family, fault
    ready = CLIENT.get(f"{nim.url}/v1/health/ready")
    assert ready.status_code == (200 if fault == "ready_but_not_status" else 503)
    assert ready.json().get("status") != "ready"
    assert CLIENT.get(f"{nim.url}/v1/health/live").status_code == 200
    assert infer(nim, BODIES[family]).status_code == 503
    nim.ready_after = time.monotonic()
    assert (infer(nim, BODIES[family]).status_code == 200) == (fault == "starting")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset_mid_body", httpx.ReadError),
        ("reset_before_reply", httpx.RemoteProtocolError),
        ("stall", httpx.ReadTimeout),
        ("silence", httpx.ReadTimeout),
    ],
)
def test_faults_of_the_connection(nim, fault, error):
    nim.fault = fault
    with pytest.raises(error):
        CLIENT.post(f"{nim.url}/v1/infer", json=COSMOS3, timeout=0.5)
    wait_for(lambda: nim.requests[0].ended)
    assert nim.requests[0].outcome == ("faulted" if fault.startswith("reset") else "disconnected")


def test_faults_of_the_video(nim):
    good = infer(nim, COSMOS3).json()["b64_video"]
    values = {}
    for fault in ("truncated_base64", "bad_base64", "not_a_video", "data_url", "null_video", "no_video"):
        nim.fault = fault
        values[fault] = infer(nim, COSMOS3).json().get("b64_video", GONE)
    assert good.startswith(values["truncated_base64"]) and len(values["truncated_base64"]) % 4 == 2
    assert len(values["bad_base64"]) == len(good) and values["bad_base64"].count("*") == 1
    assert base64.b64decode(values["not_a_video"], validate=True).startswith(b"This is no video")
    assert values["data_url"] == f"data:video/mp4;base64,{good}"
    assert values["null_video"] is None and values["no_video"] is GONE


WORDS = "the loopback backend says no"


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("html_502", 502, "502 Bad Gateway"),
        ("error_500", 500, "illegal memory access"),
        ("guardrail", 422, "Guardrail"),
        ("not_json", 200, "upstream says OK"),
        *[(name, 400, WORDS) for name in FAULTS if name.startswith("error_") and name != "error_500"],
    ],
)
@pytest.mark.parametrize("family", BODIES)
def test_faults_of_words(nim, family, fault, status, words):
    nim.family, nim.fault = family, fault
    reply = infer(nim, BODIES[family])
    assert reply.status_code == status and words in reply.text
    if fault in ("error_500", "guardrail"):
        assert set(reply.json()) == {"error" if family == "cosmos3" else "detail"}


def test_fault_redirect(nim):
    nim.fault = "redirect"
    reply = infer(nim, COSMOS3)
    assert (reply.status_code, reply.headers["location"]) == (302, "/elsewhere")
    assert CLIENT.get(f"{nim.url}/v1/health/ready").status_code == 200
    nim.fault, nim.redirect_to = "redirect_health", "http://127.0.0.1:9/away"
    reply = CLIENT.get(f"{nim.url}/v1/health/ready")
    assert (reply.status_code, reply.headers["location"]) == (302, "http://127.0.0.1:9/away")
    assert infer(nim, COSMOS3).status_code == 200


def test_fault_missing_seed(nim):
    nim.family, nim.fault = "predict1", "missing_seed"
    assert set(infer(nim, PREDICT1).json()) == {"b64_video", "upsampled_prompt"}


def test_fault_slow_trickle(nim):
    nim.fault, nim.job_seconds = "slow_trickle", 0.6
    with CLIENT.stream("POST", f"{nim.url}/v1/infer", json=COSMOS3) as reply:
        times = [time.monotonic() for _ in reply.iter_raw()]
    assert len(times) > 10 and times[-1] - times[0] > 0.5


@pytest.mark.parametrize("fault", ["huge", "huge_chunked"])
def test_fault_huge(nim, fault):
    nim.fault, nim.huge_bytes = fault, 5_000_000
    reply = infer(nim, COSMOS3)
    assert len(reply.json()["b64_video"]) == 5_000_000
    assert ("content-length" in reply.headers) == (fault == "huge")


# For benchmarks


@pytest.mark.parametrize("size", [200_000, 200_001, 200_002, 3_000_000])
def test_payload_of_an_exact_size_still_plays(nim, size):
    plain = decoded(infer(nim, COSMOS3))
    nim.payload_bytes = size
    data = decoded(infer(nim, COSMOS3))
    assert len(data) == size and data.startswith(plain)
    with av.open(io.BytesIO(data)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25


def test_raw(nim):
    reply = CLIENT.get(f"{nim.url}/raw", params={"bytes": 3_000_000})
    assert len(reply.content) == int(reply.headers["content-length"]) == 3_000_000
    base64.b64decode(reply.content, validate=True)
