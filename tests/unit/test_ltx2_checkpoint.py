"""Opening LTX-2 files: the published names at full size on meta, both kinds of files, and every wrong one."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import configs, ltx2
from tiny.names import to_diffusers
from tiny.stock import components
from xavi9videos.nodes.errors import ModelFileBroken, WrongModelFile
from xavi9videos.nodes.host import layers as host_layers
from xavi9videos.nodes.ltx2 import checkpoint, config
from xavi9videos.nodes.ltx2.checkpoint import LTX2
from xavi9videos.nodes.ltx2.upscale import open_upscaler

log = logging.getLogger(__name__)
MODEL = "model.diffusion_model."
FOUR = MODEL + "transformer_blocks.1.attn1.to_q.weight"
TEXT_WIDTH = 49 * 3840  # of all of Gemma's states


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for weights in ("fp4", "fp8", "bf16", "fp32"):
        ltx2.write_checkpoint(folder / f"ltx-2-distilled-{weights}.safetensors", weights=weights)
    ltx2.write_checkpoint(folder / "ltx-2-dev.safetensors", kind="dev", weights="bf16")
    ltx2.write_folder(folder / "LTX-2")
    ltx2.write_checkpoint(folder / "ltx-2.3-dev.safetensors", kind="dev", weights="bf16", version="2.3")
    ltx2.write_folder(folder / "LTX-2.3", version="2.3")
    return folder


@pytest.mark.parametrize("version, kind, weights, count, quantized, billions", [
    ("2.0", "distilled", "bf16", 4052, 0, 18.9), ("2.0", "distilled", "fp8", 6404, 1176, 18.9),
    ("2.3", "distilled", "bf16", 5947, 0, 19.0), ("2.3", "distilled", "fp8", 8871, 1462, 19.0),
    ("2.3", "dev", "fp8", 8939, 1496, 19.0),
])  # fmt: skip
def test_the_published_files_fit_diffusers_name_for_name(version, kind, weights, count, quantized, billions):
    published = ltx2.published_keys(weights, version, kind)
    assert len(published) == count
    names = checkpoint.split(published, checkpoint.COMPONENTS)
    made = config.described({}, "LTX-2.3" if version == "2.3" else "LTX-2")
    modules = checkpoint.skeletons(made, TEXT_WIDTH)
    scales = mapped = 0
    for component, module in modules.items():
        given = {new: published[old] for new, old in names[component].items()}
        checkpoint.check_component("published", module, given, "LTX-2")
        scales += sum(name.endswith(("weight_scale", "input_scale")) for name in given)
        mapped += len(given)
    dropped = [name for name in published if to_diffusers(name) is None]
    log.info("%s: %d tensors, %d on modules, of them %d scales, %d that diffusers drops",
             weights, count, mapped, scales, len(dropped))
    assert scales == 2 * quantized
    assert mapped + len(dropped) == count
    parameters = sum(it.numel() for it in modules["transformer"].parameters())
    assert parameters == pytest.approx(billions * 1e9, rel=0.005)


@pytest.mark.parametrize("version, kind", [("2.0", "LTX-2"), ("2.3", "LTX-2.3")])
def test_the_published_config_says_what_we_assume_without_one(version, kind):
    published = {"config": json.dumps(configs.published_config(version))}
    for it in (config.transformer, config.vae, config.audio_vae, config.vocoder):
        assert it(config.described(published)) == it(config.described({}, kind))
    found, expected = (config.connectors(config.described(*it), TEXT_WIDTH) for it in ((published,), ({}, kind)))
    assert found == expected


@pytest.mark.parametrize("version", ["2.0", "2.3"])
def test_every_name_is_the_one_that_the_published_conversion_gives(version):
    published = ltx2.published_keys(version=version)
    found = checkpoint.split(published, checkpoint.COMPONENTS)
    names = {old: (part, new) for part, of in found.items() for new, old in of.items()}
    assert names == {key: place for key in published if (place := to_diffusers(key))}


def settings(module):
    """A module's configuration, lists and tuples alike; None and nothing are the same."""
    plain = json.loads(json.dumps(dict(module.config)))
    return {name: value for name, value in plain.items() if name[0] != "_" and value is not None}


@pytest.mark.parametrize("version, names", [
    ("2.0", ("ltx-2-dev.safetensors", "LTX-2")), ("2.3", ("ltx-2.3-dev.safetensors", "LTX-2.3"))])
def test_a_folder_and_a_file_hold_the_same(files, version, names):
    file, folder = (LTX2(str(files / name)) for name in names)
    assert file.version == folder.version == version
    # perturbed_attn chooses what attention does in stock diffusers, and changes no weight.
    ours = {"perturbed_attn": True} if version == "2.3" else {}
    for one, other in zip(file.parts, folder.parts, strict=True):
        extra = ours if one is file.transformer else {}
        assert settings(one.module) | extra == settings(other.module)
        left, right = one.module.state_dict(), other.module.state_dict()
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_fp8_stays_fp8_and_mapped(files):
    model = LTX2(str(files / "ltx-2-distilled-fp8.safetensors"))
    layers = dict(model.transformer.module.named_modules())
    quantized = [name for name, it in layers.items() if hasattr(getattr(it, "weight", None), "_qdata")]
    assert len(quantized) == 56
    stored = load_file(files / "ltx-2-distilled-fp8.safetensors")
    one = layers["transformer_blocks.1.attn1.to_q"].weight
    assert one._qdata.dtype == torch.float8_e4m3fn
    name = "model.diffusion_model.transformer_blocks.1.attn1.to_q.weight"
    assert torch.equal(one._qdata.view(torch.uint8), stored[name].view(torch.uint8))
    assert float(one._params.scale) == float(stored[name + "_scale"])


def test_fp4_stays_fp4_and_says_once_that_the_device_cannot_multiply_it(files, caplog):
    host_layers.say_dequantized.cache_clear()
    path = files / "ltx-2-distilled-fp4.safetensors"
    with caplog.at_level(logging.INFO):
        model, _ = LTX2(str(path)), LTX2(str(path))
    assert caplog.text.count("FP4 weights: this device does not multiply in FP4") == 1
    layers = dict(model.transformer.module.named_modules())
    quantized = [name for name, it in layers.items() if hasattr(getattr(it, "weight", None), "_qdata")]
    assert len(quantized) == 56
    one = layers["transformer_blocks.1.attn1.to_q"].weight
    stored = load_file(path)[MODEL + "transformer_blocks.1.attn1.to_q.weight"]
    assert stored.shape == (64, 32) and torch.equal(one._qdata, stored)
    plain = load_file(files / "ltx-2-distilled-fp32.safetensors")[MODEL + "transformer_blocks.1.attn1.to_q.weight"]
    # E2M1 has eight magnitudes: of normal values it is some 9 % off.
    assert (one.dequantize().float() - plain).norm() / plain.norm() < 0.12


@pytest.mark.parametrize("change, words", [
    (lambda it: [it.pop(key) for key in list(it) if key.endswith("weight_scale_2")], "56 FP4 weights have no scale"),
    (lambda it: it.update({FOUR: it[FOUR][:, 1:].contiguous()}), r"mis-shaped 1 \(.*\(64, 31\) instead of \(64, 64\)"),
])  # fmt: skip
def test_fp4_that_does_not_fit_says_why(files, tmp_path, change, words):
    with pytest.raises(WrongModelFile, match=words):
        LTX2(broken(files, tmp_path, change, "fp4"))


def test_bf16_can_become_fp8_on_loading(files):
    plain = LTX2(str(files / "ltx-2-distilled-bf16.safetensors"))
    small = LTX2(str(files / "ltx-2-distilled-bf16.safetensors"), "fp8")
    assert small.transformer.patcher.model_size() < 0.9 * plain.transformer.patcher.model_size()
    weights = (it.transformer.module.transformer_blocks[1].attn1.to_q.weight for it in (plain, small))
    one, other = (it.dequantize() if hasattr(it, "_qdata") else it for it in weights)
    assert 0 < (one - other).norm() / one.norm() < 0.05
    assert not hasattr(small.transformer.module.transformer_blocks[0].attn1.to_q.weight, "_qdata")


def broken(files, tmp_path, change, weights="fp8"):
    whole = files / f"ltx-2-distilled-{weights}.safetensors"
    tensors = load_file(whole)
    path = tmp_path / "changed.safetensors"
    change(tensors)
    from safetensors import safe_open

    with safe_open(whole, "pt") as file:
        save_file(tensors, path, file.metadata())
    return str(path)


@pytest.mark.parametrize("change, words", [
    (lambda it: it.pop(MODEL + "transformer_blocks.3.ff.net.2.bias"),
     r"missing 1 \(transformer_blocks\.3\.ff\.net\.2\.bias\)\. It looks like LTX-2"),
    (lambda it: it.update({"vae.decoder.more.weight": torch.zeros(1)}), r"extra 1 \(decoder\.more\.weight\)"),
    (lambda it: it.update({MODEL + "proj_out.bias": torch.zeros(7)}),
     r"mis-shaped 1 \(proj_out\.bias \(7,\) instead of \(128,\)\)"),
    (lambda it: [it.pop(key) for key in list(it) if key.endswith("_scale")], r"56 FP8 weights have no scale"),
    (lambda it: it.update({FOUR: it[FOUR].float().to(torch.float8_e5m2)}), "1 FP8 weights have no format that fits"),
    (lambda it: [it.pop(key) for key in list(it) if "audio" in key], r"It looks like LTX-Video 0\.9"),
    (lambda it: it.pop("text_embedding_projection.aggregate_embed.weight"), r"text_proj_in"),
    (lambda it: it.update({MODEL + "prompt_adaln_single.linear.bias": torch.zeros(1)}), r"It looks like LTX-2\.3"),
])  # fmt: skip
def test_a_file_that_does_not_fit_says_why(files, tmp_path, change, words):
    with pytest.raises(WrongModelFile, match=words):
        LTX2(broken(files, tmp_path, change))


@pytest.mark.parametrize("keys, kind", [
    (["cond_stage_model.transformer.a", MODEL + "input_blocks.0.0.weight"], "Stable Diffusion 1.5"),
    (["conditioner.embedders.1.model.a", MODEL + "input_blocks.0.0.weight"], "Stable Diffusion XL"),
    ([MODEL + "input_blocks.1.0.time_stack.a"], "Stable Video Diffusion"),
    (["model.layers.0.pre_feedforward_layernorm.weight"], "Gemma 3"),
    (["diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight"], "a LoRA"),
    ([MODEL + "keyframes_abs_pos_embedding", MODEL + "prompt_adaln_single.linear.bias"], r"LTX-2\.5"),
    (["a.b"], "no model that this pack knows"),
])  # fmt: skip
def test_another_model_is_named(tmp_path, keys, kind):
    path = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(1) for key in keys}, path)
    with pytest.raises(WrongModelFile, match=f"It looks like {kind}"):
        LTX2(str(path))


def test_the_band_extending_vocoder_computes_in_float32(files, monkeypatch):
    """Whatever the GPU computes the rest in."""
    monkeypatch.setattr(host_layers, "compute_dtype", lambda *_: torch.bfloat16)
    path = files / "ltx-2.3-dev.safetensors"
    model, mel = LTX2(str(path)), torch.randn(1, 2, 8, 64, generator=torch.Generator().manual_seed(0))
    assert model.dtype == torch.bfloat16
    with torch.inference_mode():
        wave = model.vocoder.module(mel)
        expected = components(path, "2.3")["vocoder"](mel)
    assert wave.dtype == torch.float32 and torch.equal(wave, expected)
    assert 0.01 < wave.std() and (wave.abs() < 1).float().mean() > 0.9


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.5, 0.999])
def test_a_truncated_file_says_so(files, tmp_path, share):
    whole = (files / "ltx-2-distilled-fp8.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelFileBroken, match="cut short"):
        LTX2(str(path))


def test_a_folder_of_another_pipeline_says_so(files, tmp_path):
    shutil.copytree(files / "LTX-2", tmp_path / "other")
    path = tmp_path / "other" / "vae" / "config.json"
    path.write_text(path.read_text().replace("AutoencoderKLLTX2Video", "AutoencoderKL"))
    with pytest.raises(WrongModelFile, match="AutoencoderKLLTX2Video is needed, and it is AutoencoderKL"):
        LTX2(str(tmp_path / "other"))
    for text in ("[]", '{"_class_name": "AutoencoderKLLTX2Video", "layers_per_block": 3}', "{", None):
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(WrongModelFile, match="its vae makes no model .* a folder of LTX2Pipeline"):
            LTX2(str(tmp_path / "other"))


@pytest.mark.parametrize("metadata", [{"config": "{"}, {"config": "[]"}, {"config": '{"vae": {"encoder_blocks": 1}}'}])
def test_a_description_that_is_none_is_an_error_with_words(files, tmp_path, metadata):
    path = tmp_path / "odd.safetensors"
    save_file(load_file(files / "ltx-2-distilled-bf16.safetensors"), path, metadata)
    with pytest.raises(WrongModelFile, match="its description does not make a model"):
        LTX2(str(path))


def test_an_upscaler_that_is_none_says_what_it_is(files, tmp_path):
    with pytest.raises(WrongModelFile, match="initial_conv.weight' is missing. It looks like LTX-2"):
        open_upscaler(str(files / "ltx-2-distilled-bf16.safetensors"))
    path = tmp_path / "up.safetensors"
    ltx2.write_upscaler(path)
    tensors = load_file(path)
    for text in ("{", '{"temporal_upsample": true}', '{"num_blocks_per_stage": "x"}', '{"spatial_scale": 1.5}'):
        save_file(tensors, path, {"config": text})
        with pytest.raises(WrongModelFile, match="the spatial x2 upscaler"):
            open_upscaler(str(path))
