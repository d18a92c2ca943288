"""SVD-XT here against ComfyUI's own SVD nodes: the same file, image and noise, in one server, through POST /prompt."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_host import ComfyHost
from graphs import carried, node
from PIL import Image
from safetensors.torch import load_file, save_file
from setup_host import REPO
from tiny import svd
from tiny.svd_names import CONDITIONER, FIRST_STAGE
from xavi9videos.nodes.svd import decode, sampling
from xavi9videos.nodes.svd.checkpoint import SCHEDULE, SVD

SAME, FP32, PUBLISHED, ALIKE = "same.safetensors", "fp32.safetensors", "svd_xt.safetensors", "alike.safetensors"
PICTURES = {"wide.png": (96, 64), "tall.png": (72, 120), "clip.png": (224, 224), "square.png": (64, 64),
            "larger.png": (300, 150)}
SCALE = 0.18215  # of the latents while they are denoised

# Bound of off(), our frames from ComfyUI's. Measured 3.8e-6 to 7.5e-6 after three steps or ten, of every size, guidance
# and noise, and 1.9e-5 to 3.0e-5 after one or two: float32 rounds the same steps in another order, and at sigma 700,
# where all of them begin, its own steps are 6e-5.
CLOSE = 5e-5
# The stages one by one. Measured: the CLIP's embedding 0, the image's latents 2.6e-7, all steps 1.7e-5, the decoder
# 6.8e-7; and ComfyUI's own preprocessing for the CLIP at 224x224 3.7e-7.
SAME_STAGE, SAME_LATENTS = 2e-6, 6e-5
# ComfyUI's schedule is float32, from logarithms and back: 700.0001 for 700, and the others 3.5e-6 off at most.
SAME_SIGMAS = 1e-5
# ComfyUI keeps the CLIP of any file in float16. Measured for a float32 file 6.5e-4 in the embedding and 1.5e-4 in the
# frames; with ComfyUI's --fp32-text-enc nothing and 2.2e-5.
ROUNDED_CLIP = 1e-3
# What a change has to do at least, to be sure that the tests above would see it. Measured: see the tests.
FAR = 100 * CLOSE


@dataclass(frozen=True)
class Asked:
    file: str = SAME
    image: str = "wide.png"
    width: int = 96
    height: int = 64
    frames: int = 3
    fps: int = 7
    steps: int = 3
    motion: int = 127
    noise: float = 0.0
    guidance: tuple[float, float] = (1.0, 3.0)
    seed: int = 7
    chunk: int = 25


TALL = {"image": "tall.png", "width": 72, "height": 120}
BRIEF = {"frames": 2, "steps": 2}
SQUARE = {"image": "square.png", "width": 64, "height": 64}


def put_alike(source: Path, target: Path):
    """The published layout, where ComfyUI's encoder of the image and diffusers' hold the same weights."""
    tensors = load_file(source)
    for key in [it for it in tensors if it.startswith(FIRST_STAGE + "encoder.")]:
        tensors[key] = tensors[CONDITIONER + key.removeprefix(FIRST_STAGE)].clone()
    convolution = tensors[CONDITIONER + "quant_conv.weight"]
    convolution.copy_(torch.eye(len(convolution))[..., None, None])
    tensors[CONDITIONER + "quant_conv.bias"].zero_()
    save_file(tensors, target)


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    base = tmp_path_factory.mktemp("svd-core")
    models = base / "models" / "checkpoints"
    models.mkdir(parents=True)
    svd.write_checkpoint(models / SAME, layout="comfyui")
    svd.write_checkpoint(models / FP32, layout="comfyui", weights="fp32")
    svd.write_checkpoint(models / PUBLISHED)
    put_alike(models / PUBLISHED, models / ALIKE)
    (base / "input").mkdir()
    for name, (width, height) in PICTURES.items():
        rows, columns = np.mgrid[:height, :width]
        waves = 128 + 100 * np.sin(rows / 9 + columns / 15)
        picture = np.stack([rows * 255 / height, columns * 255 / width, waves], -1).astype(np.uint8)
        Image.fromarray(picture).save(base / "input" / name)
    packs = [REPO, *(Path(__file__).parent / name for name in ("core_pack", "svd_core_pack"))]
    with ComfyHost(base, env={"OMP_NUM_THREADS": "1"}, packs=packs) as host:
        yield host


def core(asked: Asked, *, own_clip: bool = False, factor: float = 0.5) -> dict:
    """ComfyUI's own nodes, as its SVD template wires them, with diffusers' noise; "core" gives the IMAGE of all frames.

    own_clip: show the CLIP the picture as ComfyUI does. factor: of the image's noise; ComfyUI's own is 1.
    """
    picture = node(
        "SVD_img2vid_Conditioning", clip_vision=["core model" if own_clip else "clip", int(own_clip)],
        init_image=["png", 0], vae=["core model", 2], width=asked.width, height=asked.height,
        video_frames=asked.frames, motion_bucket_id=asked.motion, fps=asked.fps, augmentation_level=asked.noise,
    )  # fmt: skip
    if asked.noise:
        picture = node("TestSVDConditioning", **picture["inputs"], seed=asked.seed, factor=factor)
    first, last = asked.guidance
    return {
        "core model": node("ImageOnlyCheckpointLoader", ckpt_name=asked.file),
        "clip": node("TestSVDClip", clip_vision=["core model", 1]),
        "png": node("LoadImage", image=asked.image),
        "picture": picture,
        "rising": node("VideoLinearCFGGuidance", model=["core model", 0], min_cfg=first),
        "guider": node("CFGGuider", model=["rising", 0], positive=["picture", 0], negative=["picture", 1], cfg=last),
        "noise": node("TestSVDNoise", seed=asked.seed),
        "euler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["core model", 0], scheduler="karras", steps=asked.steps, denoise=1.0),
        "latents": node("SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["euler", 0],
                        sigmas=["sigmas", 0], latent_image=["picture", 2]),
        "core": node("VAEDecode", samples=["latents", 0], vae=["core model", 2]),
    }  # fmt: skip


def ours(asked: Asked) -> dict:
    """The same with our nodes; "ours" gives the VIDEO."""
    first, last = asked.guidance
    return {
        "png": node("LoadImage", image=asked.image),
        "model": node("Xavi9SVDLoader", model=asked.file),
        "ours": node("Xavi9SVDImageToVideo", model=["model", 0], image=["png", 0], width=asked.width,
                     height=asked.height, frames=asked.frames, fps=asked.fps, steps=asked.steps,
                     motion_bucket_id=asked.motion, noise_aug_strength=asked.noise, min_guidance=first,
                     max_guidance=last, seed=asked.seed, decode_chunk=asked.chunk),
    }  # fmt: skip


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far one is from the other, relative to the other's size."""
    assert one.shape == other.shape
    return float((one - other).norm() / other.norm())


def apart(host, asked: Asked, theirs: Asked | None = None, **how) -> float:
    """How far our frames are from ComfyUI's, which may be asked for something else."""
    found, made = carried(host, {**core(theirs or asked, **how), **ours(asked)}, "core", "ours")
    assert (made["size"], made["frames"], made["fps"]) == ([asked.width, asked.height], asked.frames, asked.fps)
    return off(made["images"], found)


@pytest.mark.parametrize("inputs", [
    {}, {"noise": 0.02, **TALL}, {"frames": 1}, {"frames": 25, "steps": 1, **SQUARE}, {"guidance": (1.0, 1.0)},
    {"frames": 2, "steps": 10, **SQUARE},
    {"guidance": (2.0, 2.5), "fps": 25, "motion": 255, "noise": 1.0, "seed": 2**40},
])  # fmt: skip
def test_video_is_cores(host, inputs):
    assert apart(host, Asked(**inputs)) < CLOSE


def test_video_is_cores_with_its_own_clip_where_that_resizes_nothing(host):
    """At 224x224 nothing of ComfyUI's is replaced but the noise."""
    assert apart(host, Asked(image="clip.png", width=224, height=224, frames=2, steps=1), own_clip=True) < CLOSE


@pytest.fixture(scope="module")
def stages(host):
    """What ComfyUI's nodes make of Asked(), by node, and what our parts make of it in this process."""
    asked = Asked()
    frames, sigmas, latents, picture = carried(host, core(asked), "core", "sigmas", "latents", "picture")
    [[embedding, more]] = picture
    theirs = {"embedding": embedding, "image": more["concat_latent_image"][0], "sigmas": sigmas,
              "latents": latents["samples"] * SCALE, "frames": frames}

    model = SVD(str(host.base / "models" / "checkpoints" / asked.file))
    [picture] = carried(host, ours(asked), "png")
    shot = sampling.Shot(picture, asked.width, asked.height, asked.frames, asked.fps, asked.motion, asked.noise,
                         asked.guidance)
    given = []
    model.unet.module.register_forward_pre_hook(lambda module, args, inputs: given.append((args, inputs)),
                                                with_kwargs=True)
    with torch.inference_mode():
        latents = sampling.denoise(model, shot, asked.steps, asked.seed, lambda *_: None)
        # ComfyUI's latents, so that the decoder alone is compared.
        frames = torch.cat(list(decode.pictures(model, theirs["latents"], shot, asked.chunk)))
    (both, *_), inputs = given[0]
    made = {"embedding": inputs["encoder_hidden_states"][1:], "image": both[1, 0, 4:], "latents": latents,
            "frames": frames}
    return made, theirs


@pytest.mark.parametrize(("stage", "bound"), [("embedding", SAME_STAGE), ("image", SAME_STAGE),
                                              ("latents", SAME_LATENTS), ("frames", SAME_STAGE)])
def test_each_stage_is_cores(stages, stage, bound):
    made, theirs = stages
    assert off(made[stage], theirs[stage]) < bound


@pytest.mark.parametrize("steps", [1, 3, 25])
def test_schedule_is_cores(host, steps):
    _, scheduler = sampling.classes()
    made = scheduler.from_config(SCHEDULE)
    made.set_timesteps(steps)
    [theirs] = carried(host, core(Asked(steps=steps)), "sigmas")
    assert len(theirs) == steps + 1 and theirs[-1] == made.sigmas[-1] == 0
    torch.testing.assert_close(made.sigmas, theirs, rtol=SAME_SIGMAS, atol=0)


def test_decode_chunk_is_cores_decode_of_so_many_frames(host):
    """ComfyUI decodes as many together as memory allows."""
    asked, pieces = Asked(frames=5, chunk=2, **SQUARE), [(0, 2), (2, 2), (4, 1)]
    graph = {**core(asked), **ours(asked)}
    for start, length in pieces:
        graph[f"piece {start}"] = node("LatentFromBatch", samples=["latents", 0], batch_index=start, length=length)
        graph[f"frames {start}"] = node("VAEDecode", samples=[f"piece {start}", 0], vae=["core model", 2])
    made, together, *parts = carried(host, graph, "ours", "core", *(f"frames {start}" for start, _ in pieces))
    assert off(made["images"], torch.cat(parts)) < CLOSE
    # Measured 0.21.
    assert off(made["images"], together) > FAR


def test_core_puts_twice_the_noise_on_the_image(host):
    """It adds it to values of 0..1, diffusers and Stability AI to -1..1. Measured 0.15; half of it is ours."""
    assert apart(host, Asked(noise=0.1, **BRIEF), factor=1.0) > FAR


def test_cores_sampler_node_differs_by_its_noise_alone(host):
    """KSampler draws none for the image first. Measured 0.25, as far as another seed."""
    asked = Asked(**BRIEF)
    graph = {**core(asked), **ours(asked)}
    graph["noise"] = node("RandomNoise", noise_seed=asked.seed)
    graph["sampler"] = node(
        "KSampler", model=["rising", 0], positive=["picture", 0], negative=["picture", 1], latent_image=["picture", 2],
        seed=asked.seed, steps=asked.steps, cfg=asked.guidance[1], sampler_name="euler", scheduler="karras",
        denoise=1.0,
    )  # fmt: skip
    template, pieces, frames, made = carried(host, graph, "sampler", "latents", "core", "ours")
    assert torch.equal(template["samples"], pieces["samples"])
    assert off(made["images"], frames) > FAR


def test_core_shows_its_clip_the_middle_of_the_picture(host):
    """A square, cut out and rounded to 8 bits; diffusers and Stability AI squeeze all of it. Measured 0.064 for 3:2."""
    assert apart(host, Asked(**BRIEF), own_clip=True) > FAR


def test_core_resizes_otherwise(host):
    """Bilinear where we have Lanczos, and its CLIP sees what is cut off from the video. Measured 0.055."""
    assert apart(host, Asked(image="larger.png", **BRIEF)) > FAR


@pytest.mark.parametrize("theirs", [
    {"seed": 8}, {"motion": 128}, {"fps": 8}, {"guidance": (1.5, 3.0)}, {"guidance": (1.0, 2.5)}, {"steps": 3},
])  # fmt: skip
def test_another_input_is_found_out(host, theirs):
    """Measured, in this order: 0.27, 0.024, 0.027, 0.081, 0.033 and 0.055."""
    assert apart(host, Asked(**BRIEF), Asked(**BRIEF | theirs)) > FAR


def test_the_amount_of_noise_is_told_to_both(host):
    """ComfyUI is told of 1, without any noise. Measured 0.029."""
    assert apart(host, Asked(**BRIEF), Asked(noise=1.0, **BRIEF), factor=0.0) > FAR


def test_published_layout_is_cores_but_for_the_encoder_of_the_image(host):
    """ComfyUI takes the one beside the video's decoder, diffusers and Stability AI the conditioner's.

    Measured 2.5e-5 where both hold the same weights, 0.27 where they are two random ones.
    """
    assert apart(host, Asked(ALIKE, **BRIEF)) < CLOSE
    assert apart(host, Asked(PUBLISHED, **BRIEF)) > FAR


def test_a_float32_file_is_cores_but_for_its_clip(host):
    assert CLOSE < apart(host, Asked(FP32, **BRIEF)) < ROUNDED_CLIP
