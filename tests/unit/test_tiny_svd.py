"""The tiny SVD-XT is what it claims: ComfyUI's own classes, diffusers and transformers compute the same from it."""

import logging
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import stock, svd, svd_names
from tiny.svd_names import CONDITIONER, FIRST_STAGE, MODEL, TEXT, VISUAL

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """fp32 and fp16 (published), comfyui (fp32) and folder with both variants, all of seed 0."""
    path, start = tmp_path_factory.mktemp("svd"), time.monotonic()
    svd.write_checkpoint(path / "fp32", weights="fp32")
    svd.write_checkpoint(path / "fp16")
    svd.write_checkpoint(path / "comfyui", weights="fp32", layout="comfyui")
    svd.write_folder(path / "folder", weights=("fp32", "fp16"))
    log.info("SVD-XT written in %.1f s, fp16 file %d bytes", time.monotonic() - start,
             (path / "fp16").stat().st_size)
    return path


@pytest.fixture(scope="module")
def tensors(files):
    return load_file(files / "fp32")


@pytest.fixture(scope="module")
def pipe(files):
    return stock.svd_pipeline(files / "fp32")


def below(tensors, prefix):
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def picture(seed=0):
    """Coloured blobs, 128x72."""
    blobs = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(seed))
    pixels = torch.nn.functional.interpolate(blobs, size=(72, 128), mode="bicubic").clamp(0, 1)
    return Image.fromarray((pixels[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))


def frames(pipe, image=0, seed=0, count=4, **options):
    """(count, 3, 72, 128), 0 to 1."""
    return pipe(picture(image), width=128, height=72, num_frames=count, num_inference_steps=2, output_type="pt",
                generator=torch.Generator().manual_seed(seed), **options).frames[0]


def close(value, wanted):
    assert (value - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_core_unet_equals_diffusers(tensors, pipe):
    from comfy.ldm.modules.diffusionmodules.util import timestep_embedding

    core = svd.core_unet(svd.TINY["unet"], device="cpu").eval()
    core.load_state_dict(below(tensors, MODEL))
    # Two clips of three frames, whose sides no level but the first halves evenly.
    sample, context = noise(2, 3, 8, 9, 14), noise(2, 1, 32, seed=1)
    ids, steps = torch.tensor([[6.0, 127.0, 0.02], [11.0, 40.0, 0.1]]), torch.tensor([1.6, 1.6])
    labels = timestep_embedding(ids.flatten(), 256).reshape(2, -1)
    with torch.inference_mode():
        wanted = pipe.unet(sample, steps, context, ids).sample
        value = core(sample.flatten(0, 1), steps.repeat_interleave(3), context.repeat_interleave(3, 0),
                     labels.repeat_interleave(3, 0), num_video_frames=3)
    assert 0.3 < wanted.std() < 3
    close(value.unflatten(0, (2, 3)), wanted)


def test_core_vae_equals_diffusers(tensors, pipe):
    core, latents, image = svd.core_vae(svd.TINY["vae"]), noise(4, 4, 9, 16), noise(1, 3, 72, 128)
    core["decoder"].load_state_dict(below(tensors, FIRST_STAGE + "decoder."))
    core["encoder"].load_state_dict(below(tensors, CONDITIONER + "encoder."))
    core["plain_decoder"].load_state_dict(below(tensors, CONDITIONER + "decoder."))
    with torch.inference_mode():
        close(core["decoder"].eval()(latents), pipe.vae.decode(latents, num_frames=4).sample)
        wanted = pipe.vae.encoder(image)
        close(core["encoder"].eval()(image), wanted)
        core["encoder"].load_state_dict(below(tensors, FIRST_STAGE + "encoder."))
        assert (core["encoder"](image) - wanted).abs().mean() > 0.1


def test_core_clip_equals_transformers(tensors, files, pipe):
    import comfy.ops
    from comfy.clip_model import CLIPVisionModelProjection
    from comfy.clip_vision import convert_to_transformers

    converted = convert_to_transformers({VISUAL + key: value for key, value in below(tensors, VISUAL).items()}, VISUAL)
    saved = below(load_file(files / "comfyui"), VISUAL)
    assert converted.keys() == saved.keys() == pipe.image_encoder.state_dict().keys()
    assert all(torch.equal(converted[key], saved[key]) for key in saved)
    core = CLIPVisionModelProjection(svd.TINY["image_encoder"], torch.float32, "cpu", comfy.ops.manual_cast).eval()
    core.load_state_dict(converted)
    with torch.inference_mode():
        close(core(noise(2, 3, 224, 224))[2], pipe.image_encoder(noise(2, 3, 224, 224)).image_embeds)


def test_layouts(tensors, files):
    published, saved = load_file(files / "fp16"), load_file(files / "comfyui")
    assert published.keys() == tensors.keys()
    assert all(torch.equal(published[key], value.half()) for key, value in tensors.items())
    common = [key for key in saved if key.startswith((MODEL, FIRST_STAGE))]
    assert common == [key for key in tensors if key.startswith((MODEL, FIRST_STAGE))]
    assert all(torch.equal(saved[key], tensors[key]) for key in common)
    assert {key for key in saved if not key.startswith((MODEL, FIRST_STAGE, VISUAL))} == {
        "edm_vpred.sigma_max", "edm_vpred.sigma_min"}
    with safe_open(files / "comfyui", "pt") as file:
        assert file.metadata()["modelspec.architecture"] == "stable-video-diffusion-img2vid-v1"
    for options in ({"weights": "bf16"}, {"layout": "other"}):
        with pytest.raises(ValueError, match="known"):
            svd.write_checkpoint(files / "none", **options)


def test_same_seed_same_bytes(files, tmp_path):
    svd.write_checkpoint(tmp_path / "again")
    svd.write_checkpoint(tmp_path / "other", seed=1)
    assert (tmp_path / "again").read_bytes() == (files / "fp16").read_bytes()
    assert (tmp_path / "again").stat().st_size < 28e6
    key = MODEL + "input_blocks.1.0.in_layers.2.weight"
    assert not torch.equal(load_file(tmp_path / "other")[key], load_file(tmp_path / "again")[key])


@pytest.mark.parametrize("weights", ["fp32", "fp16"])
def test_folder_and_file_make_the_same_frames(files, weights):
    from diffusers import StableVideoDiffusionPipeline

    pipe = StableVideoDiffusionPipeline.from_pretrained(
        files / "folder", variant=None if weights == "fp32" else weights, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    # Where a weight starts in memory decides how a kernel sums, on some machines even from page to page: 4e-5 in the
    # frames.
    theirs = frames(stock.svd_pipeline(files / weights), count=3)
    assert (frames(pipe, count=3) - theirs).abs().max() < 2e-4


def test_frames_hear_every_input(pipe):
    start = time.monotonic()
    base = frames(pipe)
    log.info("4 frames of 128x72, 2 steps, stock: %.1f s", time.monotonic() - start)
    assert 0.1 < base.std() < 0.3 and 0.35 < base.mean() < 0.65
    assert ((base <= 0) | (base >= 1)).float().mean() < 0.1
    assert (base[1:] - base[:-1]).abs().mean() > 0.02
    for options in ({"image": 1}, {"seed": 1}, {"motion_bucket_id": 60}, {"fps": 24}):
        assert (frames(pipe, **options) - base).abs().mean() > 0.02, options
    embeds, encode = pipe._encode_image(picture(1), "cpu", 1, True), pipe._encode_image
    pipe._encode_image = lambda *_: embeds
    changed = frames(pipe)
    pipe._encode_image = encode
    assert (changed - base).abs().mean() > 0.02


@pytest.fixture(scope="module")
def published():
    return svd.published_tensors()


def test_published(published):
    assert {name: len(below(published, prefix)) for name, prefix in {
        "unet": MODEL, "decoder": FIRST_STAGE + "decoder.", "encoder": FIRST_STAGE + "encoder.",
        "conditioner": CONDITIONER, "visual": VISUAL, "text": TEXT}.items()} == {
        "unet": 1428, "decoder": 266, "encoder": 106, "conditioner": 248, "visual": 392, "text": 398}
    assert len(published) == 2446
    assert sum(value.nbytes for value in published.values()) == 9_559_279_140
    parts = svd_names.components(published)
    assert {name: sum(value.numel() for value in part.values()) for name, part in parts.items()} == {
        "unet": 1_524_623_082, "vae": 97_742_847, "image_encoder": 632_076_800}


def test_published_names_are_diffusers_and_transformers(published):
    import diffusers
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"):
        made = {name: getattr(diffusers, svd.PUBLISHED[name]["_class_name"]).from_config(svd.PUBLISHED[name])
                for name in ("unet", "vae")}
        made["image_encoder"] = CLIPVisionModelWithProjection(CLIPVisionConfig(**svd.PUBLISHED["image_encoder"]))
    for name, part in svd_names.components(published).items():
        wanted = {key: value.shape for key, value in made[name].state_dict().items()}
        assert {key: value.shape for key, value in part.items()} == wanted


def test_core_knows_the_published_file(published):
    from comfy.model_detection import model_config_from_unet
    from comfy.supported_models import SVD_img2vid

    config = model_config_from_unet(published, MODEL)
    assert type(config) is SVD_img2vid
    detected = {key: config.unet_config[key] for key in ("num_res_blocks", "channel_mult", "transformer_depth_output",
                                                         "transformer_depth_middle", "disable_temporal_crossattention")}
    assert detected == {"num_res_blocks": [2] * 4, "channel_mult": [1, 2, 4, 4], "transformer_depth_middle": 1,
                        "transformer_depth_output": [1] * 9 + [0] * 3, "disable_temporal_crossattention": False}
