"""LTX-2 through POST /prompt of a real server, on tiny weights in the published formats."""

import re
import time
from pathlib import Path

import av
import numpy as np
import pytest
from clips import packets
from comfy_host import STOP_SECONDS, ComfyHost
from graphs import (
    GEMMA_FILE,
    LTX2,
    LTX2_FILE,
    changed,
    check_unloading,
    encoders,
    fails,
    opened,
    picture,
    refused,
    run,
    settle,
    until,
)
from setup_host import REPO
from tiny import gemma


def graph(*more: dict, **inputs) -> dict:
    """LTX2 with these inputs, as node_input=value, and with more nodes."""
    return changed(LTX2, *more, **inputs)


@pytest.mark.parametrize("width, height, frames, fps", [(250, 150, 20, 24), (96, 64, 1, 50), (32, 100, 17, 25)])
def test_people_get_exactly_what_they_asked_for(server, width, height, frames, fps):
    path = run(server, graph(sample_width=width, sample_height=height, sample_frames=frames, sample_fps=fps))
    assert picture(path) == (width, height, frames, fps)
    with av.open(str(path)) as container:
        sound = container.streams.audio[0]
        heard = sum(frame.samples for frame in container.decode(sound))
        assert sound.rate == 24000
    # AAC comes in packets of 1024 samples.
    assert frames / fps * 24000 <= heard + 1024 and heard <= frames / fps * 24000 + 2048


def test_the_same_seed_is_the_same_video_bit_for_bit(server, uncached):
    # x264 itself gives the same 96x64 frames other bits now and then.
    size = {"sample_width": 256, "sample_height": 160}
    first = run(server, graph(**size))
    server.free(free_memory=True)
    again = run(server, graph(**size, save_filename_prefix="ltx2/again"))
    other = run(server, graph(**size, sample_seed=2))
    one, same, another = ([packets(path, kind) for kind in ("video", "audio")] for path in (first, again, other))
    assert one == same
    assert one[0] != another[0] and one[1] != another[1]


@pytest.mark.parametrize("loader", [
    {"load_checkpoint": "ltx-2-19b-distilled.safetensors", "load_text_encoder": "gemma-3-12b-it"},
    {"load_checkpoint": "LTX-2", "load_text_encoder": "LTX-2/text_encoder", "sample_schedule": "dev",
     "sample_steps": 2},
    {"load_weights": "bf16"}, {"load_weights": "fp8", "load_checkpoint": "ltx-2-19b-distilled.safetensors"},
])  # fmt: skip
def test_every_kind_of_file_works(server, loader):
    assert picture(run(server, graph(**loader))) == (96, 64, 9, 25)


IMAGE = {"image": {"class_type": "LoadImage", "inputs": {"image": "example.png"}}}


@pytest.mark.parametrize("images", [("first_image",), ("last_image",), ("first_image", "last_image")])
def test_images_steer_the_video(server, images):
    links = {f"sample_{name}": ["image", 0] for name in images}
    plain, steered = run(server, graph()), run(server, graph(IMAGE, **links, sample_image_strength=0.9))
    assert plain.read_bytes() != steered.read_bytes()


def test_a_second_stage_doubles_the_size_that_was_asked_for(server):
    upscale = {"up": {"class_type": "Xavi9LTX2Upscale", "inputs": {
        "model": ["load", 0], "conditioning": ["text", 0], "latents": ["sample", 0], "seed": 3,
        "upscaler": "ltx-2-spatial-upscaler-x2-1.0.safetensors"}}}  # fmt: skip
    size = {"sample_width": 96, "sample_height": 70}
    for nodes, links in (({}, {}), (IMAGE, {"sample_first_image": ["image", 0]})):
        path = run(server, graph(upscale, nodes, **size, **links, decode_latents=["up", 0]))
        assert picture(path) == (192, 140, 9, 25)


def test_only_a_new_seed_opens_no_file_and_loads_no_text_encoder(server, uncached):
    run(server, graph(text_prompt="Only the seed changes."))
    before = opened(server), encoders(server)
    run(server, graph(text_prompt="Only the seed changes.", sample_seed=99))
    assert (opened(server), encoders(server)) == before
    run(server, graph(text_prompt="The prompt changes."))
    assert (opened(server), encoders(server)) == (before[0] + 1, before[1] + 1)


def test_unloaded_means_gone(server, uncached):
    check_unloading(server, graph(), LTX2_FILE)


def test_it_is_freed_after_another_prompt_too(server, uncached):
    """Another graph drops the loader's result, and nobody but the host has the model then."""
    run(server, graph())
    settle(server)
    server.free(unload_models=True, free_memory=True)
    settle(server)
    run(server, graph())


def test_an_interrupt_ends_it_within_a_step_and_the_next_prompt_runs(server):
    # So many steps that it is not over when, on a busy machine, word of the first comes late.
    many = {"sample_schedule": "dev", "sample_steps": 60, "sample_guidance_scale": 1.0, "sample_seed": 5}
    with server.events() as events:
        prompt = server.post(graph(sample_width=768, sample_height=512, sample_frames=121, **many))
        until(lambda: any(it["type"] == "progress" and it["data"]["node"] == "sample" for it in events))
        began = time.monotonic()
        server.interrupt()
        entry = server.wait(prompt)
        took = time.monotonic() - began
        steps = max(it["data"]["value"] for it in events if it["type"] == "progress")
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    assert steps < 60 and took < 3
    run(server, graph())


@pytest.mark.parametrize("inputs, words", [
    ({"load_checkpoint": "none.safetensors"}, r"none\.safetensors is not in .*checkpoints.*download_models\.sh ltx2"),
    ({"load_text_encoder": "no-gemma"}, r"no-gemma is not in .*text_encoders"),
    ({"load_checkpoint": "../../input/example.png"}, r"is not in"),
    ({"sample_steps": 20}, r"distilled schedule has 8 steps, and steps is 20"),
    ({"sample_frames": 0}, r"frames"), ({"sample_width": 0}, r"width"), ({"sample_fps": 0}, r"fps"),
    ({"text_prompt": "  "}, r"The prompt is empty"),
])  # fmt: skip
def test_bad_input_is_refused_before_anything_runs(server, inputs, words):
    assert re.search(words, refused(server, graph(**inputs)))


def test_bad_files_are_named_and_the_next_prompt_runs(server):
    models = server.base / "models"
    whole = (models / "checkpoints" / LTX2_FILE).read_bytes()
    (models / "checkpoints" / "cut.safetensors").write_bytes(whole[:200_000])
    gemma.write_file(models / "text_encoders" / "small.safetensors", layers=3)
    (models / "checkpoints" / "gemma.safetensors").write_bytes((models / "text_encoders" / GEMMA_FILE).read_bytes())
    try:
        assert "cut short" in fails(server, graph(load_checkpoint="cut.safetensors"))
        assert "It looks like Gemma 3" in fails(server, graph(load_checkpoint="gemma.safetensors"))
        assert "the checkpoint takes 1568" in fails(server, graph(load_text_encoder="small.safetensors"))
        assert "up to 1024" in fails(server, graph(text_prompt="word " * 5000))
        lora = {"lora": {"class_type": "Xavi9LTX2LoRA", "inputs": {
            "model": ["load", 0], "lora": "ltx2-test-lora.safetensors", "strength": 0.2}}}  # fmt: skip
        run(server, graph(lora, sample_model=["lora", 0]))
    finally:
        for name in ("checkpoints/cut", "checkpoints/gemma", "text_encoders/small"):
            (models / f"{name}.safetensors").unlink()
    run(server, graph())


def test_images_that_cannot_be_used_are_refused_and_alpha_is_not(server):
    batch = {"image": {"class_type": "RepeatImageBatch", "inputs": {"image": ["one", 0], "amount": 3}},
             "one": IMAGE["image"]}  # fmt: skip
    assert "it is a batch of 3" in fails(server, graph(batch, sample_first_image=["image", 0]))
    alpha = {"image": {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["one", 0], "alpha": ["one", 1]}},
             "one": IMAGE["image"]}  # fmt: skip
    run(server, graph(alpha, sample_first_image=["image", 0]))


def test_one_step_of_the_dev_schedule_is_finite(server):
    path = run(server, graph(load_checkpoint="ltx-2-19b-dev-fp8.safetensors", sample_schedule="dev", sample_steps=1))
    assert "NaN" not in server.log()
    assert picture(path) == (96, 64, 9, 25)


def test_guidance_changes_the_video_and_is_named_where_it_does_not_belong(server):
    dev = {"load_checkpoint": "ltx-2-19b-dev-fp8.safetensors", "sample_schedule": "dev", "sample_steps": 2}
    guided = {"guide": {"class_type": "Xavi9LTX2Guidance", "inputs": {"stg_block": 2, "audio_stg_scale": 0.0}}}
    plain = run(server, graph(**dev))
    made = run(server, graph(guided, **dev, sample_guidance=["guide", 0]))
    assert packets(plain, "video") != packets(made, "video") and packets(plain, "audio") != packets(made, "audio")
    for guide, words in (({"stg_block": 99}, "stg_block"), ({"rescale": 2.0}, "rescale")):
        guided["guide"]["inputs"] = guide
        assert words in refused(server, graph(guided, **dev, sample_guidance=["guide", 0]))
    guided["guide"]["inputs"] = {"stg_block": 40}
    assert "stg_block is 40; -1 to 3 are allowed" in fails(server, graph(guided, **dev, sample_guidance=["guide", 0]))
    guided["guide"]["inputs"] = {}
    with server.events() as events:
        run(server, graph(guided, sample_guidance=["guide", 0], sample_seed=8))
        until(lambda: any("LTX-2 Guidance is for the dev schedule" in str(it) for it in events))


def test_latents_that_another_node_made_larger_are_decoded(server):
    nodes = {
        "part": {"class_type": "LTXVSeparateAVLatent", "inputs": {"av_latent": ["sample", 0]}},
        "twice": {"class_type": "LatentUpscaleBy", "inputs": {
            "samples": ["part", 0], "upscale_method": "nearest-exact", "scale_by": 2.0}},
        "join": {"class_type": "LTXVConcatAVLatent", "inputs": {
            "video_latent": ["twice", 0], "audio_latent": ["part", 1]}},
    }  # fmt: skip
    assert picture(run(server, graph(nodes, decode_latents=["join", 0]))) == (192, 128, 9, 25)


def test_latents_of_another_kind_are_refused(server):
    empty = {"empty": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}}
    assert "not picture and sound" in fails(server, graph(empty, decode_latents=["empty", 0]))


def test_with_another_cache_and_without_memory(tmp_path, server):
    """--cache-classic keeps what a prompt does not use."""
    (tmp_path / "models").symlink_to(server.base / "models")
    packs = [REPO, Path(__file__).parent / "memory_pack"]
    with ComfyHost(tmp_path, args=["--cache-classic"], packs=packs, env={"OMP_NUM_THREADS": "1"}) as host:
        run(host, graph())
        before = opened(host), encoders(host)
        run(host, graph(sample_seed=2))
        assert (opened(host), encoders(host)) == before
        (host.base / "input" / "no-memory").touch()
        words = fails(host, graph(sample_width=1920, sample_height=1080, sample_seed=3))
        assert re.search(r"LTX-2 at 1920x1080, 9 frames needs about [\d.]+ GB of memory, and 0\.0 GB are free.*"
                         r"Reduce the resolution or frames", words)
        (host.base / "input" / "no-memory").unlink()
        run(host, graph(sample_seed=3))
        # With a model open, too, it ends when it is asked to.
        began = time.monotonic()
        host.stop()
        assert time.monotonic() - began < STOP_SECONDS


def keyframe(image: str = "image", **inputs) -> dict:
    return {"class_type": "Xavi9LTX2Keyframe", "inputs": {"image": [image, 0], "frame": 0, "strength": 1.0, **inputs}}


def test_keyframes_follow_each_other_and_each_counts(server):
    size = {"sample_frames": 25, "sample_keyframes": ["second", 0]}
    chain = IMAGE | {"first": keyframe(frame=-1), "second": keyframe(frame=5, keyframes=["first", 0])}
    videos = [run(server, graph(sample_frames=25)), run(server, graph(chain, **size))]
    for name, inputs in (("first", {"frame": 12}), ("second", {"strength": 0.5}), ("first", {"strength": 0.0})):
        changed_chain = chain | {name: {**chain[name], "inputs": chain[name]["inputs"] | inputs}}
        videos.append(run(server, graph(changed_chain, **size)))
    assert len({packets(path, "video")[0] + packets(path, "video")[-1] for path in videos}) == len(videos)


@pytest.mark.parametrize("nodes, inputs, words", [
    ({"key": keyframe(frame=9)}, {}, r"frame is 9; -9 to 8 are allowed"),
    ({"key": keyframe(), "image": IMAGE["image"]}, {"sample_first_image": ["image", 0]}, r"at frame 0 of the video"),
    ({"key": keyframe("many"), "many": {"class_type": "RepeatImageBatch", "inputs": {"image": ["image", 0],
                                                                                     "amount": 2}}}, {}, r"batch of 2"),
])  # fmt: skip
def test_keyframes_that_cannot_be_used_are_refused(server, nodes, inputs, words):
    assert re.search(words, fails(server, graph(IMAGE, nodes, sample_keyframes=["key", 0], **inputs)))


CLIP = {"clip": {"class_type": "LoadVideo", "inputs": {"file": "clip.mp4"}}}


def extend(**inputs) -> dict:
    given = {"video": ["clip", 0], "overlap": 9, "strength": 1.0, **inputs}
    return CLIP | {"extend": {"class_type": "Xavi9LTX2Extend", "inputs": given}}


def test_a_clip_goes_on_and_both_are_joined(server):
    """The clip's 60 frames at 30 a second, then the new ones that it does not show, at its size and rate."""
    join = {"join": {"class_type": "Xavi9VideoJoin", "inputs": {"first": ["clip", 0], "second": ["decode", 0],
                                                                "overlap": 9}}}  # fmt: skip
    given = graph(extend(), join, sample_frames=25, sample_fps=30, sample_width=160, sample_height=90,
                  sample_keyframes=["extend", 0], save_video=["join", 0])  # fmt: skip
    assert picture(run(server, given)) == (960, 540, 60 + 16, 30)


@pytest.mark.parametrize("overlap, words", [
    (12, r"no overlap 12; it has 1, 9, 17.*Set overlap to 9"), (129, r"overlap is 129; 1 to 121"), (0, "0; 1 to 121")])
def test_an_overlap_of_no_whole_latents_is_refused_before_anything_runs(server, overlap, words):
    given = graph(extend(overlap=overlap), sample_keyframes=["extend", 0])
    assert re.search(words, refused(server, given))


@pytest.mark.parametrize("inputs, words", [
    ({"overlap": 9}, r"the new video has 9: none would be new. Set overlap to 1 or less"),
    ({"overlap": 57}, r"has 50 frames at the new video's rate, and its overlap is 57. Set overlap to 49"),
])  # fmt: skip
def test_a_clip_that_cannot_be_used_is_refused(server, inputs, words):
    frames = 9 if inputs["overlap"] == 9 else 121
    assert re.search(words, fails(server, graph(extend(**inputs), sample_keyframes=["extend", 0],
                                                sample_frames=frames)))  # fmt: skip


SOUND = {"wav": {"class_type": "LoadAudio", "inputs": {"audio": "sound.wav"}}}


def test_a_given_sound_is_the_videos_sound_as_it_came(server):
    own = run(server, graph(sample_frames=25))
    path = run(server, graph(SOUND, sample_frames=25, sample_audio=["wav", 0]))
    assert packets(path, "video") != packets(own, "video")
    with av.open(str(path)) as container, av.open(str(server.base / "input" / "sound.wav")) as wav:
        [stream], rate = container.streams.audio, wav.streams.audio[0].rate
        heard = np.concatenate([it.to_ndarray()[0] for it in container.decode(audio=0)])
        given = np.concatenate([it.to_ndarray().reshape(-1, 2)[:, 0] / 32768 for it in wav.decode(audio=0)])
        assert stream.rate == rate == 44_100
    # The left channel is a clean rising tone, and AAC hardly changes it.
    part = slice(4_000, 40_000)
    assert np.corrcoef(heard[part], given[part])[0, 1] > 0.99


def test_a_strength_beyond_its_range_is_refused(server):
    assert "audio_strength" in refused(server, graph(SOUND, sample_audio=["wav", 0], sample_audio_strength=2.0))
