"""LTX-2 on the host's memory: the same bits however much is loaded, nothing left behind, and what is refused."""

import gc
import json
import math
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bench import ltx2_models as models
from parts import CPU, Live, distance, load_part_of, on_meta
from tiny.ltx2 import write_checkpoint, write_lora
from xavi9videos.nodes.errors import LoRANotUsable, NotEnoughMemory
from xavi9videos.nodes.host import layers, memory
from xavi9videos.nodes.ltx2 import config as describe
from xavi9videos.nodes.ltx2.attention import prepared
from xavi9videos.nodes.ltx2.checkpoint import LTX2, skeletons
from xavi9videos.nodes.ltx2.config import LTX2_19B
from xavi9videos.nodes.ltx2.sampling import activation_bytes, schedule
from xavi9videos.nodes.ltx2.shot import Keyframe, Shot


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    for weights in ("fp4", "fp8", "bf16"):
        write_checkpoint(folder / f"{weights}.safetensors", weights=weights)
    for weights in ("fp4", "fp8"):
        write_checkpoint(folder / f"{weights}-2.3.safetensors", version="2.3", weights=weights)
    write_lora(folder / "trainer-2.3.safetensors", version="2.3")
    for spelling in ("trainer", "diffusers", "bare", "kohya"):
        write_lora(folder / f"{spelling}.safetensors", spelling=spelling)
    return folder


@pytest.fixture(params=["fp4", "fp8", "bf16", "fp8-2.3", "fp4-2.3"])
def model(files, request):
    return LTX2(str(files / f"{request.param}.safetensors"))


def forward(model):
    """One call of the transformer as it is loaded now: (video, audio)."""
    torch.manual_seed(5)
    width = 64 if model.version == "2.3" else 32
    inputs = {
        "hidden_states": torch.randn(1, 8, 128), "audio_hidden_states": torch.randn(1, 9, 128),
        "encoder_hidden_states": torch.randn(1, 128, width), "audio_encoder_hidden_states": torch.randn(1, 128, 32),
        "timestep": torch.tensor([700.0]), "sigma": torch.tensor([700.0]), "num_frames": 2, "height": 2, "width": 2,
        "audio_num_frames": 9, "return_dict": False,
    }  # fmt: skip
    with torch.inference_mode():
        return torch.cat([it.flatten() for it in model.transformer.module(**inputs)])


def test_the_same_bits_whole_half_unloaded_and_loaded_again(model):
    part = model.transformer
    with torch.inference_mode():
        bits = [forward(model)]
        for share in (1.0, 0.5):
            memory.unload(part)
            part.patcher.detach()
            load_part_of(part, share)
            bits.append(forward(model))
        part.patcher.partially_unload(CPU, part.patcher.model_size() // 4)
        bits.append(forward(model))
        memory.load([part], 0, "test")
        bits.append(forward(model))
    memory.unload(part)
    bits.append(forward(model))
    assert all(torch.equal(bits[0], it) for it in bits[1:])
    assert part.patcher.loaded_size() == 0


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_nothing_is_left_behind_when_a_part_is_loaded(model, share):
    for part in model.parts:
        assert on_meta(part, share) == []


def test_off_the_device_a_weight_is_the_mapped_file_again(model):
    part = model.transformer
    before = {name: it.data_ptr() for name, it in part.module.named_parameters() if not hasattr(it, "_qdata")}
    for inside in (True, False):
        with torch.inference_mode(inside):
            on_meta(part, 2.0)
        with torch.inference_mode(not inside):
            part.patcher.detach()
        after = {name: it.data_ptr() for name, it in part.module.named_parameters() if not hasattr(it, "_qdata")}
        assert after == before
        assert not any(it.is_meta for it in part.module.parameters())


@pytest.mark.parametrize("inside", [True, False])
def test_fp8_is_unloaded_inside_and_outside_of_inference_mode(files, inside):
    model = LTX2(str(files / "fp8.safetensors"))
    with torch.inference_mode(not inside):
        memory.load([model.transformer], 0, "test")
    with torch.inference_mode(inside):
        memory.unload(model.transformer)
    assert not model.transformer.entries


@pytest.mark.parametrize("weights", ["fp8", "bf16"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_lora_comes_off_inside_and_outside_of_inference_mode(files, weights, inside):
    model = LTX2(str(files / f"{weights}.safetensors"))
    plain = forward(model)
    with torch.inference_mode():
        model.use_loras(((str(files / "trainer.safetensors"), 0.5),))
        memory.load([model.transformer], 0, "test")
        assert distance(forward(model), plain) > 0.03
    with torch.inference_mode(inside):
        memory.unload(model.transformer)
        model.use_loras(())
        assert torch.equal(forward(model), plain)
    with torch.inference_mode():
        memory.load([model.transformer], 0, "test")
    assert torch.equal(forward(model), plain)


SPELLINGS = ("trainer", "diffusers", "bare", "kohya")


def test_every_spelling_of_a_lora_is_the_same_lora(files):
    model = LTX2(str(files / "bf16.safetensors"))
    plain, found = forward(model), []
    for spelling in SPELLINGS:
        model.use_loras(((str(files / f"{spelling}.safetensors"), 0.5),))
        assert len(model.transformer.patcher.patches) == 138
        memory.load([model.transformer], 0, "test")
        found.append(forward(model))
    assert distance(found[0], plain) > 0.05
    assert all(distance(it, found[0]) < 1e-6 for it in found[1:])
    model.use_loras(())
    memory.load([model.transformer], 0, "test")
    assert torch.equal(forward(model), plain)


# Of a LoRA's effect. Loaded whole, the host rounds the patched weight to what the file holds (FP8 is quantized again);
# left off the device it patches a finer copy. It does so to any model; measured here: 0.07, 0.40 and, where FP4's eight
# magnitudes are chosen anew, 0.95.
LORA_BOUNDS = {"bf16": 0.1, "fp8": 0.6, "fp4": 1.2}


def test_a_lora_half_loaded_is_the_lora_within_the_stated_bound(model):
    weights = Path(model.path).stem.partition("-")[0]
    plain = forward(model)
    model.use_loras(((model.path.replace(weights, "trainer"), 0.3),))
    found = []
    for share in (2.0, 0.5, 0.0):
        model.transformer.patcher.detach()
        load_part_of(model.transformer, share) if share else model.transformer.patcher.partially_load(CPU, 1)
        found.append(forward(model))
    effect = distance(found[-1], plain)
    assert effect > 0.03
    assert all(distance(it, found[-1]) <= LORA_BOUNDS[weights] * effect for it in found)
    model.transformer.patcher.detach()
    model.use_loras(())
    assert torch.equal(forward(model), plain)


def test_a_lora_that_was_replaced_is_another_one(files, tmp_path):
    model, path = LTX2(str(files / "bf16.safetensors")), tmp_path / "mine.safetensors"
    found = []
    for seed in (0, 1):
        write_lora(path, seed=seed)
        model.use_loras(((str(path), 0.5),))
        memory.load([model.transformer], 0, "test")
        found.append(forward(model))
    assert distance(*found) > 0.05


@pytest.mark.parametrize("name, lora", [("fp8", "trainer-2.3"), ("fp8-2.3", "trainer")])
def test_a_lora_of_the_other_version_is_refused(files, name, lora):
    model = LTX2(str(files / f"{name}.safetensors"))
    with pytest.raises(LoRANotUsable, match=r"2 of its layers have another shape \(\w+\.linear\): .* another version"):
        model.use_loras(((str(files / f"{lora}.safetensors"), 1.0),))


def test_two_loras_add_up_and_a_strange_one_is_refused(files):
    from safetensors.torch import save_file

    model = LTX2(str(files / "bf16.safetensors"))
    one = str(files / "trainer.safetensors")
    results = []
    for loras in (((one, 0.2), (one, 0.2)), ((one, 0.4),)):
        model.use_loras(loras)
        memory.load([model.transformer], 0, "test")
        results.append(forward(model))
    assert distance(*results) < 5e-3
    strange = files / "strange.safetensors"
    save_file({"unet.a.lora_A.weight": torch.zeros(1, 1), "unet.a.lora_B.weight": torch.zeros(1, 1)}, strange)
    with pytest.raises(LoRANotUsable, match="none of its layers"):
        model.use_loras(((str(strange), 1.0),))


@pytest.mark.parametrize("version", ["2.0", "2.3"])
@pytest.mark.parametrize("pictures", [(), (Keyframe(torch.empty(1, 8, 8, 3)),)])
def test_what_a_step_takes_is_asked_for(version, pictures):
    """A block of an eighth of the published width; per token and width all of them take the same."""
    described = describe.described({"config": json.dumps(models.config(4, 1, 480, version))})
    module, dice = skeletons(described, 49 * 480)["transformer"], torch.Generator().manual_seed(0)
    state = {name: models.value(name, it.shape, dice) for name, it in module.state_dict().items()}
    layers.fill(module, state, torch.bfloat16)
    shot = Shot(512, 320, 97, 25, pictures)
    count, *size = shot.latent_size
    timesteps = torch.full((1, count * math.prod(size)), 700.0)
    timesteps[:, : math.prod(size)] = 0
    widths = (512, 256) if version == "2.3" else (480, 480)
    texts = [torch.randn(1, 1024, width, dtype=torch.bfloat16) for width in widths]
    inputs = {
        "hidden_states": torch.randn(1, timesteps.numel(), 128, dtype=torch.bfloat16),
        "audio_hidden_states": torch.randn(1, 97, 128, dtype=torch.bfloat16),
        "encoder_hidden_states": texts[0], "audio_encoder_hidden_states": texts[1],
        "timestep": timesteps if pictures else timesteps[:, -1], "sigma": timesteps[:, -1],
        "num_frames": count, "height": size[0], "width": size[1], "audio_num_frames": 97, "return_dict": False,
    }  # fmt: skip
    with torch.inference_mode(), prepared(module, keep=False), Live() as live:
        module(**inputs)
    model = SimpleNamespace(transformer=SimpleNamespace(module=module), text_width=0, dtype=torch.bfloat16)
    assert 1 <= activation_bytes(model, shot, schedule("distilled", 0, 0)) / live.peak < 1.25


@pytest.mark.parametrize("frames", [17, 49])
def test_what_encoding_a_clip_takes_is_asked_for(frames):
    """The full-size VAE on meta; a clip is the only thing that can take more than a step."""
    vae = skeletons(LTX2_19B, 49 * 3840)["vae"].to(torch.bfloat16)
    with torch.no_grad(), Live() as live:
        vae.encode(torch.empty(1, 3, frames, 512, 768, dtype=torch.bfloat16, device="meta"))
    config = SimpleNamespace(num_attention_heads=0, attention_head_dim=0, cross_attn_mod=False)
    model = SimpleNamespace(transformer=SimpleNamespace(module=SimpleNamespace(config=config)), text_width=0,
                            dtype=torch.bfloat16)
    shot = Shot(768, 512, 121, 25, (Keyframe(torch.empty(frames, 8, 8, 3)),))
    asked = activation_bytes(model, shot, schedule("distilled", 0, 0))
    assert 1 <= asked / live.peak < 1.2


@pytest.fixture
def spark(monkeypatch):
    """A GPU with unified memory: CUDA says that 2 GB are free, Linux says `available` bytes. Nothing is loaded."""
    calls = []
    fake = SimpleNamespace(available=20e9, calls=calls)
    device = torch.device("cuda:0")
    manager = memory.model_management
    monkeypatch.setattr(manager, "get_torch_device", lambda: device)
    monkeypatch.setattr(manager, "get_free_memory", lambda *_: 2e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(is_integrated=fake.integrated))
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=fake.available))
    monkeypatch.setattr(manager, "free_memory", lambda *args, **more: calls.append("freed"))
    monkeypatch.setattr(manager, "load_models_gpu", lambda models, **more: calls.append(more))
    monkeypatch.setattr(memory.pages, "forget", lambda files: calls.append(list(files)))
    fake.integrated = True
    return fake


def weights_of(gigabytes):
    """Stands for a part of so many bytes, of which nothing is loaded."""
    return SimpleNamespace(
        patcher=SimpleNamespace(model_size=lambda: gigabytes * 1e9, loaded_size=lambda: 0), path="weights.safetensors"
    )


def test_on_unified_memory_what_fits_is_loaded_whole(spark):
    memory.load([weights_of(10)], 1e9, "LTX-2")
    # Then the file's pages go, or its weights would count twice.
    assert spark.calls == [{"memory_required": 1e9, "force_full_load": True}, [Path("weights.safetensors")]]


def test_on_unified_memory_weights_and_reserve_must_fit(spark):
    with pytest.raises(NotEnoughMemory, match=r"LTX-2 needs about 21\.0 GB of memory, and 20\.0 GB are free.*"
                                              r"Reduce the resolution or frames.*XAVI9_MEMORY_RESERVE_GB") as caught:
        memory.load([weights_of(12)], 1e9, "LTX-2")
    assert isinstance(caught.value, torch.OutOfMemoryError)
    assert spark.calls == ["freed"]


def test_on_a_card_weights_that_do_not_fit_are_the_hosts_business(spark):
    spark.integrated = False
    memory.load([weights_of(12)], 1e9, "LTX-2")
    assert spark.calls == [{"memory_required": 1e9, "force_full_load": False}]
    with pytest.raises(NotEnoughMemory):
        memory.load([weights_of(12)], 3e9, "LTX-2")


def gone(reference):
    """Whether what it refers to goes within five seconds: models are dropped in a thread of their own."""
    limit = time.monotonic() + 5
    while reference() is not None and time.monotonic() < limit:
        time.sleep(0.05)
    return reference() is None


def test_a_model_lives_as_long_as_someone_asks_for_it_or_it_is_loaded(files, monkeypatch):
    monkeypatch.setattr(memory, "SECONDS_TO_UNLOAD", 0.2)
    path = str(files / "fp8.safetensors")

    def handle():
        return memory.Handle(memory.identity(path), lambda: LTX2(path))

    first = handle()
    opened = first.model
    assert handle().model is opened
    memory.load([opened.transformer], 0, "test")
    del first
    gc.collect()
    assert handle().model is opened, "it is still loaded"
    reference = memory.weakref.ref(opened)
    kept = handle()
    memory.model_management.unload_all_models()
    assert kept.model is opened, "its files stay open while a handle asks for it"
    del opened, kept
    assert gone(reference)


def test_the_host_can_unload_a_model_that_nobody_asks_for(files, monkeypatch):
    monkeypatch.setattr(memory, "SECONDS_TO_UNLOAD", 0.2)
    path = str(files / "fp8.safetensors")
    handle = memory.Handle(memory.identity(path), lambda: LTX2(path))
    opened = memory.weakref.ref(handle.model)
    memory.load([opened().transformer, opened().vae], 0, "test")
    del handle
    gc.collect()
    # It holds its models by weak references, and its worker would die when one goes meanwhile.
    memory.model_management.unload_all_models()
    assert gone(opened)


def test_one_local_model_at_a_time(files):
    handles = [
        memory.Handle(memory.identity(path), lambda path=path: LTX2(path))
        for path in (str(files / "fp8.safetensors"), str(files / "bf16.safetensors"))
    ]
    first = memory.weakref.ref(handles[0].model)
    memory.load([first().transformer], 0, "test")
    second = handles[1].model
    gc.collect()
    assert first() is None
    assert handles[0].model.path != second.path


def resident():
    """kB of mapped files in this process."""
    return int(re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def test_pages_of_a_mapped_file_are_given_back_and_read_again(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "big.safetensors"
    save_file({"a": torch.arange(16_000_000, dtype=torch.int32)}, path)
    with safe_open(path, "pt") as file:
        mapped = file.get_tensor("a")
    total = mapped.sum()
    before = resident()
    memory.pages.forget([path])
    assert before - resident() > 60_000
    assert mapped.sum() == total


def test_a_changed_file_is_another_model(files, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes((files / "fp8.safetensors").read_bytes())
    before = memory.identity(str(path))
    path.write_bytes((files / "bf16.safetensors").read_bytes())
    assert memory.identity(str(path)) != before
