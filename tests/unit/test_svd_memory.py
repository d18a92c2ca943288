"""SVD-XT on the host's memory: the same bits however much is loaded, and nothing left behind."""

from types import SimpleNamespace

import pytest
import torch
from parts import CPU, load_part_of, on_meta
from tiny import svd
from xavi9videos.nodes.errors import NotEnoughMemory
from xavi9videos.nodes.host import layers, memory
from xavi9videos.nodes.svd import checkpoint, decode, sampling
from xavi9videos.nodes.svd.checkpoint import SVD
from xavi9videos.nodes.weights import shapes


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    for weights in ("fp16", "fp32"):
        svd.write_checkpoint(folder / f"{weights}.safetensors", weights=weights)
    return folder


@pytest.fixture(params=["fp16", "fp32"])
def model(files, request):
    return SVD(str(files / f"{request.param}.safetensors"))


def calls(model):
    """One call of each component as it is loaded now."""
    torch.manual_seed(5)
    inputs = {
        "sample": torch.randn(2, 3, 8, 4, 8), "timestep": torch.tensor(1.5), "return_dict": False,
        "encoder_hidden_states": torch.randn(2, 1, 32), "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]] * 2),
    }  # fmt: skip
    image, latents = torch.randn(1, 3, 64, 64), torch.randn(3, 4, 4, 8)
    with torch.inference_mode():
        return {
            "unet": model.unet.module(**inputs)[0],
            "vae": torch.cat([
                model.vae.module.encode(image).latent_dist.mode().flatten(),
                model.vae.module.decode(latents, num_frames=3).sample.flatten(),
            ]),
            "image_encoder": model.image_encoder.module(torch.randn(1, 3, 224, 224)).image_embeds,
        }  # fmt: skip


def test_the_same_bits_whole_half_unloaded_and_loaded_again(model):
    with torch.inference_mode():
        found = [calls(model)]
        for share in (1.0, 0.5):
            for part in model.parts:
                memory.unload(part)
                part.patcher.detach()
                load_part_of(part, share)
            found.append(calls(model))
        for part in model.parts:
            part.patcher.partially_unload(CPU, part.patcher.model_size() // 4)
        found.append(calls(model))
        memory.load(model.parts, 0, "test")
        found.append(calls(model))
    for part in model.parts:
        memory.unload(part)
        assert part.patcher.loaded_size() == 0
    found.append(calls(model))
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in other)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_nothing_is_left_behind_when_a_part_is_loaded(model, share):
    for part in model.parts:
        assert on_meta(part, share) == []


def test_off_the_device_a_weight_is_the_mapped_file_again(model):
    for part in model.parts:
        before = {name: it.data_ptr() for name, it in part.module.named_parameters()}
        with torch.inference_mode():
            on_meta(part, 2.0)
        part.patcher.detach()
        assert {name: it.data_ptr() for name, it in part.module.named_parameters()} == before
        assert not any(it.is_meta for it in [*part.module.parameters(), *part.module.buffers()])


@pytest.mark.parametrize("weights", ["fp16", "fp32"])
def test_on_a_gpu_weights_take_what_flows_through_them(files, monkeypatch, weights):
    """The published file is float32, and its weights would else lie there at twice the size."""
    monkeypatch.setattr(layers, "compute_dtype", lambda *_: torch.float16)
    model = SVD(str(files / f"{weights}.safetensors"))
    assert model.dtype == torch.float16
    assert {it.dtype for it in (model.unet.module, model.image_encoder.module)} == {torch.float16}
    # The image is encoded in float32, as stock diffusers does it; asked for half, it would move the whole VAE.
    assert model.vae.module.dtype == torch.float32
    for part in (model.unet, model.image_encoder):
        on_meta(part, 2.0)
        assert {it.dtype for it in part.module.parameters()} == {torch.float16}
        part.patcher.detach()
        stored = {it.dtype for name, it in part.module.named_parameters() if name.endswith("proj.weight")}
        assert stored == {torch.float32 if weights == "fp32" else torch.float16}


def asked(**inputs):
    shot = {
        "image": torch.rand(1, 64, 128, 3), "width": 128, "height": 64, "frames": 5, "fps": 7,
        "motion_bucket_id": 127, "noise_aug_strength": 0.02, "guidance": (1.0, 3.0),
    }  # fmt: skip
    return sampling.Shot(**{**shot, **inputs})


def test_each_component_is_loaded_before_it_computes(model, monkeypatch):
    loaded = []
    real = memory.load

    def load(parts, activations, what):
        loaded.append(([it.module for it in parts], activations, what))
        real(parts, activations, what)

    monkeypatch.setattr(memory, "load", load)
    with torch.inference_mode():
        latents = sampling.denoise(model, asked(), 1, 1, lambda *_: None)
        frames = list(decode.pictures(model, latents, asked(), 2))
    assert [len(it) for it in frames] == [2, 2, 1]
    stages = [model.image_encoder, model.vae, model.unet, model.vae, model.vae, model.vae]
    assert [parts for parts, *_ in loaded] == [[it.module] for it in stages]
    assert loaded[2][2] == "SVD-XT at 128x64, 5 frames"
    assert loaded[3][2] == "Decoding 2 frames of 128x64 together (decode_chunk sets how many)"
    # A chunk of half as many frames needs half as much.
    assert loaded[3][1] == 2 * loaded[5][1]


def test_too_little_memory_is_said_before_anything_is_computed(model, monkeypatch):
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=150_000_000))
    with pytest.raises(NotEnoughMemory, match=r"SVD-XT at 1024x576, 25 frames needs about [\d.]+ GB of memory"):
        sampling.denoise(model, asked(width=1024, height=576, frames=25), 1, 1, lambda *_: None)


def test_the_published_size_needs_what_was_measured(files):
    """On the meta device, the live tensors of one call: 8.0 GB for the U-Net, 9.7 GB for 8 frames, 1.5 GB to encode."""
    fake = SimpleNamespace(
        dtype=torch.float16,
        unet=SimpleNamespace(module=SimpleNamespace(config=SimpleNamespace(block_out_channels=(320, 640, 1280, 1280)))),
        vae=SimpleNamespace(module=SimpleNamespace(config=SimpleNamespace(block_out_channels=(128, 256, 512, 512)))),
    )
    whole = asked(width=1024, height=576, frames=25)
    needed = sampling.activation_bytes(fake, whole)
    assert 8.0e9 < needed["unet"] < 9.6e9
    assert 1.5e9 < needed["vae"] < 1.9e9
    assert 9.66e9 < decode.needed_bytes(fake, 8, 576, 1024) < 11e9
    assert sampling.activation_bytes(fake, asked(guidance=(1.0, 1.0)))["unet"] * 2 == (
        sampling.activation_bytes(fake, asked())["unet"]
    )


def test_what_the_host_cannot_offload_by_itself_is_a_few_values():
    """At the published size: all else is in layers of the host's."""
    published = svd.published_tensors()
    parts = checkpoint.converted(published)
    strays = {
        f"{place}.{key}": value.numel()
        for module in checkpoint.skeletons({name: shapes(part) for name, part in parts.items()}).values()
        for place, it in module.named_modules() if type(it) not in layers.LAYERS
        for key, value in it._parameters.items() if value is not None
    }  # fmt: skip
    assert all(name.endswith(("mix_factor", "class_embedding")) for name in strays)
    assert sum(strays.values()) < 2000
