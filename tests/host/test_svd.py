"""SVD-XT through POST /prompt of a real server, on tiny weights in the published formats."""

import io
import re
import time

import pytest
import websocket
from clips import packets, probe
from comfy_host import ComfyHost
from graphs import (
    SVD,
    SVD_FILE,
    changed,
    check_unloading,
    fails,
    opened,
    picture,
    refused,
    run,
    until,
)
from PIL import Image
from tiny import svd

FOLDER = "stable-video-diffusion-img2vid-xt"


def graph(*more: dict, **inputs) -> dict:
    """SVD with these inputs, as node_input=value, and with more nodes."""
    return changed(SVD, *more, **inputs)


@pytest.mark.parametrize("width, height, frames, fps", [(128, 64, 25, 7), (122, 66, 1, 30), (64, 200, 3, 12)])
def test_people_get_exactly_what_they_asked_for(server, width, height, frames, fps):
    path = run(server, graph(animate_width=width, animate_height=height, animate_frames=frames, animate_fps=fps))
    assert picture(path) == (width, height, frames, fps)
    assert probe(path)["audio"] is None


def test_the_same_seed_is_the_same_video_bit_for_bit_in_a_fresh_process_too(server, uncached, tmp_path):
    # x264 itself gives small frames other bits now and then.
    size = {"animate_width": 256, "animate_height": 160, "animate_frames": 3}
    first = run(server, graph(**size))
    server.free(free_memory=True)
    again = run(server, graph(**size, write_filename_prefix="svd/again"))
    other = run(server, graph(**size, animate_seed=2))
    folder = run(server, graph(**size, svd_model=FOLDER))
    (tmp_path / "models").symlink_to(server.base / "models")
    (tmp_path / "input").symlink_to(server.base / "input")
    with ComfyHost(tmp_path, env={"OMP_NUM_THREADS": "1"}) as fresh:
        fresh_one = run(fresh, graph(**size))
        one = packets(first)
        assert one == packets(again) == packets(folder) == packets(fresh_one)
    assert one[0] != packets(other)[0]


def test_without_an_image_nothing_is_queued(server):
    prompt = graph()
    del prompt["animate"]["inputs"]["image"], prompt["picture"]
    words = refused(server, prompt)
    assert words.count("SVD-XT needs an image") == 1 and "Connect Load Image" in words
    # The editor marks the input by this one.
    assert re.search(r"required_input_missing.*image", words)


@pytest.mark.parametrize("inputs, words", [
    ({"svd_model": "none.safetensors"},
     r"none\.safetensors is not in .*checkpoints or .*diffusers.*download_models\.sh svd"),
    ({"svd_model": "../../input/example.png"}, r"is not in"),
    ({"animate_min_guidance": -1.0}, r"min_guidance"), ({"animate_max_guidance": 1000.0}, r"max_guidance"),
    ({"animate_frames": 0}, r"frames"), ({"animate_width": 0}, r"width"), ({"animate_fps": 0}, r"fps"),
    ({"animate_steps": 0}, r"steps"), ({"animate_decode_chunk": 0}, r"decode_chunk"),
])  # fmt: skip
def test_bad_input_is_refused_before_anything_runs(server, inputs, words):
    assert re.search(words, refused(server, graph(**inputs)))


def test_images_that_cannot_be_used_are_refused_and_alpha_is_not(server):
    one = {"one": SVD["picture"]}
    batch = {"picture": {"class_type": "RepeatImageBatch", "inputs": {"image": ["one", 0], "amount": 3}}}
    assert "it is a batch of 3" in fails(server, graph(one, batch))
    alpha = {"picture": {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["one", 0], "alpha": ["one", 1]}}}
    run(server, graph(one, alpha))


@pytest.mark.parametrize("kind, name, value, words", [
    ("PrimitiveInt", "frames", 0, "frames is 0; 1 to 256 are allowed"),
    ("PrimitiveInt", "fps", 0, "fps is 0; 1 to 60 are allowed"),
    ("PrimitiveFloat", "max_guidance", 1000.0, "max_guidance is 1000.0; 0 to 100 are allowed"),
])  # fmt: skip
def test_a_linked_number_is_checked_when_it_runs(server, kind, name, value, words):
    number = {"number": {"class_type": kind, "inputs": {"value": value}}}
    assert words in fails(server, graph(number, **{f"animate_{name}": ["number", 0]}))


def test_a_folder_behind_a_link_is_offered_and_opens(server):
    link = server.base / "models" / "diffusers" / "linked"
    link.symlink_to(server.base / "models" / "diffusers" / FOLDER, target_is_directory=True)
    try:
        offered = server.object_info()["Xavi9SVDLoader"]["input"]["required"]["model"]
        assert "linked" in str(offered)
        run(server, graph(svd_model="linked"))
    finally:
        link.unlink()


def test_bad_files_are_named_and_the_next_prompt_runs(server):
    models = server.base / "models" / "checkpoints"
    (models / "cut.safetensors").write_bytes((models / SVD_FILE).read_bytes()[:200_000])
    try:
        assert "cut short" in fails(server, graph(svd_model="cut.safetensors"))
        assert "It looks like LTX-2" in fails(server, graph(svd_model="ltx-2-19b-distilled-fp8.safetensors"))
        assert "a folder of LTX2Pipeline" in fails(server, graph(svd_model="LTX-2"))
        assert "it is no picture" in fails(server, graph(animate_image=None))
    finally:
        (models / "cut.safetensors").unlink()
    run(server, graph())


def test_only_a_new_seed_opens_no_file(server, uncached):
    run(server, graph())
    before = opened(server)
    run(server, graph(animate_seed=99))
    assert opened(server) == before


def test_only_another_decode_chunk_does_not_sample_again(server, uncached):
    first = run(server, graph())
    with server.events() as events:
        other = run(server, graph(animate_decode_chunk=5))
        steps = [it for it in events if it["type"] == "progress" and it["data"]["node"] == "animate"]
    assert not steps
    assert packets(first) != packets(other)


def test_a_file_that_was_replaced_is_another_model(server, uncached):
    path = server.base / "models" / "checkpoints" / "mine.safetensors"
    found = []
    try:
        for seed in (0, 1):
            svd.write_checkpoint(path, seed=seed)
            found.append(packets(run(server, graph(svd_model=path.name))))
    finally:
        path.unlink()
    assert found[0] != found[1]


def test_unloaded_means_gone(server, uncached):
    check_unloading(server, graph(), SVD_FILE)


def test_an_interrupt_ends_it_within_a_step_and_the_next_prompt_runs(server):
    # A step takes some seconds.
    large = {"animate_width": 384, "animate_height": 192, "animate_frames": 14, "animate_steps": 8, "animate_seed": 5}
    with server.events() as events:
        prompt = server.post(graph(**large))
        until(lambda: any(it["type"] == "progress" and it["data"]["node"] == "animate" for it in events))
        began = time.monotonic()
        server.interrupt()
        entry = server.wait(prompt)
        steps = [it for it in events if it["type"] == "progress" and it["data"]["node"] == "animate"]
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    # The step under way may have been at its end.
    assert sum(it["at"] > began for it in steps) <= 1
    run(server, graph())


def test_an_interrupt_while_frames_are_decoded_ends_it(server):
    large = {"animate_width": 384, "animate_height": 192, "animate_frames": 14, "animate_steps": 1}
    prompt = server.post(graph(**large, animate_decode_chunk=14, animate_seed=6))
    with server.events() as events:
        until(lambda: any(it["type"] == "executing" and it["data"].get("node") == "write" for it in events))
        time.sleep(0.5)
        began = time.monotonic()
        server.interrupt()
        entry = server.wait(prompt)
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    assert time.monotonic() - began < 3
    assert not list((server.base / "output" / "svd").glob(".*.part"))


def test_each_step_shows_a_picture(server, uncached):
    """Where the host was told to preview; they come as the websocket's binary messages."""
    connection = websocket.create_connection(f"{server.url.replace('http', 'ws')}/ws?clientId={server.client_id}",
                                             http_no_proxy=["127.0.0.1"], timeout=60)  # fmt: skip
    try:
        body = {"prompt": graph(animate_steps=3), "client_id": server.client_id,
                "extra_data": {"preview_method": "latent2rgb"}}  # fmt: skip
        server.http.post("/prompt", json=body).raise_for_status()
        pictures = []
        while len(pictures) < 3:
            message = connection.recv()
            if isinstance(message, bytes) and (start := message.find(b"\xff\xd8")) >= 0:
                pictures.append(Image.open(io.BytesIO(message[start:])))
    finally:
        connection.close()
    assert {it.width / it.height for it in pictures} == {2.0}
