"""The tiny models are what they claim: ComfyUI's own classes, diffusers and transformers take them whole."""

import collections
import json
import logging
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import configs, gemma, ltx2, models
from tiny.names import MODEL, to_diffusers

log = logging.getLogger(__name__)
TEXTS = ["A red fox walks through fresh snow at dawn.", "", "  two  spaces ", "naïve café — 狐 🦊\n\ttab", "<mask>",
         "¿Quién la sigue? 24 fps, close-up: a robot's hand...", "thththth the the aaaaaaaaa     x" * 9]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ComfyUI's models folder with everything that put_models writes."""
    start = time.monotonic()
    path = tmp_path_factory.mktemp("models")
    models.put_models(path)
    log.info("tiny models written in %.1f s", time.monotonic() - start)
    return path


def header(path):
    with safe_open(path, "pt") as file:
        return {key: file.get_slice(key).get_dtype() for key in file.keys()}, file.metadata()


@pytest.mark.parametrize(("name", "count", "layers"), [
    ("ltx-2-19b-distilled-fp8", 720, 56), ("ltx-2-19b-dev-fp8", 720, 56), ("ltx-2-19b-distilled", 608, 0),
    ("ltx-2.3-22b-distilled-fp8", 1179, 68)])
def test_checkpoint_counts(folder, name, count, layers):
    dtypes, metadata = header(folder / f"checkpoints/{name}.safetensors")
    assert len(dtypes) == count
    fp8 = {key.removesuffix(".weight") for key, dtype in dtypes.items() if dtype == "F8_E4M3"}
    assert len(fp8) == layers
    assert {layer.split(".")[3] for layer in fp8} == ({"1", "2"} if layers else set())
    assert all(dtypes[layer + suffix] == "F32" for layer in fp8 for suffix in (".weight_scale", ".input_scale"))
    assert all(dtype == "F32" for key, dtype in dtypes.items() if "scale_shift_table" in key)
    assert json.loads(metadata.get("_quantization_metadata", '{"layers": {}}'))["layers"].keys() == fp8
    assert json.loads(metadata["config"]).keys() == ltx2.published_config().keys()


@pytest.mark.parametrize("name", ["ltx-2-19b-distilled-fp8", "ltx-2-19b-dev-fp8", "ltx-2-19b-distilled",
                                  "ltx-2.3-22b-distilled-fp8"])
def test_core_loads_the_checkpoint(folder, name, caplog):
    import comfy.sd

    path = str(folder / f"checkpoints/{name}.safetensors")
    with caplog.at_level(logging.WARNING):
        model, _, vae, _ = comfy.sd.load_checkpoint_guess_config(path, output_clip=False)
    assert not [record for record in caplog.records if "missing" in record.message or "unexpected" in record.message]
    assert type(model.model.diffusion_model).__name__ == "LTXAVModel"
    keys = set(load_file(path))
    suffix = (".weight_scale", ".input_scale", ".comfy_quant")
    own = {MODEL + key for key in model.model.diffusion_model.state_dict() if not key.endswith(suffix)}
    assert own == {key for key in keys if key.startswith(MODEL) and not key.endswith(suffix)}
    unused = {f"vae.per_channel_statistics.{name}" for name in ("channel", "mean-of-stds",
                                                                "mean-of-stds_over_std-of-means")}
    built = {"vae." + key for key in vae.first_stage_model.state_dict()}
    assert {key for key in keys if key.startswith("vae.")} == (built - unused if "2.3" in name else built | unused)
    latent = torch.randn(1, 128, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    frames = vae.decode(latent)[0]
    assert frames.shape == (9, 160, 256, 3)
    assert 0.1 < frames.std() < 0.3 and 0.35 < frames.mean() < 0.65
    # Smooth: neighbours differ much less than pixels far apart.
    assert (frames[:, :, 1:] - frames[:, :, :-1]).abs().mean() < 0.5 * (frames - frames.flip(2)).abs().mean()


@pytest.mark.parametrize("name, rate", [("ltx-2-19b-distilled", 24000), ("ltx-2.3-22b-distilled-fp8", 48000)])
def test_core_loads_the_sound(folder, name, rate):
    from comfy.ldm.lightricks.vae.audio_vae import AudioVAE

    path = folder / f"checkpoints/{name}.safetensors"
    model = AudioVAE(metadata=header(path)[1])
    model.load_state_dict({key.replace("audio_vae.", "autoencoder."): value.float()
                           for key, value in load_file(path).items() if key.startswith(("audio_vae.", "vocoder."))})
    sound = model.decode(torch.randn(1, 8, 17, 16, generator=torch.Generator().manual_seed(0)))
    assert sound.shape[:2] == (1, 2) and model.output_sample_rate == rate
    assert 0.02 < sound.std() < 0.4 and sound.isfinite().all()


def test_same_seed_same_bytes(tmp_path):
    first, again, other, dev = (tmp_path / name for name in "abcd")
    ltx2.write_checkpoint(first)
    ltx2.write_checkpoint(again)
    ltx2.write_checkpoint(other, seed=1)
    ltx2.write_checkpoint(dev, kind="dev")
    assert first.read_bytes() == again.read_bytes()
    for path in (other, dev):
        key = MODEL + "transformer_blocks.0.attn1.to_q.weight"
        assert not torch.equal(load_file(first)[key], load_file(path)[key])


def test_fp8_is_the_float_file_rounded(tmp_path):
    ltx2.write_checkpoint(tmp_path / "a", weights="fp8")
    ltx2.write_checkpoint(tmp_path / "b", weights="fp32")
    fp8, fp32 = load_file(tmp_path / "a"), load_file(tmp_path / "b")
    assert {value.dtype for value in fp32.values()} == {torch.float32}
    for key in [key for key, value in fp8.items() if value.dtype == torch.float8_e4m3fn]:
        value = fp8[key].float() * fp8[key.removesuffix(".weight") + ".weight_scale"]
        assert (value - fp32[key]).norm() / fp32[key].norm() < 0.04


def test_folder_holds_the_dev_weights(folder, tmp_path):
    ltx2.write_checkpoint(tmp_path / "dev", kind="dev", weights="bf16")
    held = {}
    for component in configs.DIFFUSERS:
        for path in (folder / "diffusers/LTX-2" / component).glob("*.safetensors"):
            held |= {(component, key): value for key, value in load_file(path).items()}
    wanted = {to_diffusers(key): value for key, value in load_file(tmp_path / "dev").items() if to_diffusers(key)}
    assert held.keys() == wanted.keys() and len(wanted) == 605
    assert all(torch.equal(held[place], wanted[place]) for place in wanted)


def test_diffusers_loads_the_folder(folder):
    from diffusers import LTX2Pipeline

    pipe, path = LTX2Pipeline.from_pretrained(folder / "diffusers/LTX-2"), folder / "diffusers/LTX-2"
    for component in configs.DIFFUSERS:
        held = {}
        for file in (path / component).glob("*.safetensors"):
            held |= load_file(file)
        state = getattr(pipe, component).state_dict()
        assert state.keys() == held.keys()
        assert all(torch.equal(state[key].float(), held[key].float()) for key in held)
    assert pipe.tokenizer("a fox").input_ids[0] == 2


@pytest.mark.parametrize("name, config", [("ltx-2-spatial-upscaler-x2-1.0", configs.UPSCALER),
                                          ("ltx-2.3-spatial-upscaler-x2-1.1", configs.UPSCALER_23)])
def test_upscaler_fits_both(folder, name, config):
    from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel

    path = folder / f"latent_upscale_models/{name}.safetensors"
    assert json.loads(header(path)[1]["config"]) == config
    core, rational = ltx2.core_upscaler(config), config["rational_resampler"]
    other = LTX2LatentUpsamplerModel(mid_channels=32, num_blocks_per_stage=1, use_rational_resampler=rational)
    tensors = {key: value.float() for key, value in load_file(path).items()}
    core.load_state_dict(tensors)
    other.load_state_dict(tensors)
    latents = torch.randn(1, 128, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        large = core(latents)
        assert large.shape == (1, 128, 3, 10, 16) and 0.2 < large.std() < 3
        torch.testing.assert_close(other(latents), large)


def changes(path, spelling, names):
    """The transformer's changes, alpha / rank x B @ A, by the single file's names."""
    tensors, found = load_file(path), {}
    for name in names:
        down, up = (tensors.pop(ltx2.lora_key(name, spelling, half)).float() for half in "AB")
        alpha = tensors.pop(f"lora_unet_{name.replace('.', '_')}.alpha", torch.tensor(float(len(down))))
        found[name] = alpha / len(down) * (up @ down)
    assert not tensors
    return found


def test_lora_spellings_agree(folder, tmp_path):
    checkpoint = load_file(folder / "checkpoints/ltx-2-19b-distilled.safetensors")
    names, found = ltx2.linears(checkpoint), {}
    assert len(names) == 138
    for spelling in ("trainer", "diffusers", "bare", "kohya"):
        ltx2.write_lora(tmp_path / spelling, spelling=spelling)
        found[spelling] = changes(tmp_path / spelling, spelling, names)
    for name, change in found["trainer"].items():
        assert all(torch.equal(change, other[name]) for other in found.values())
    sizes = [(found["trainer"][name].norm() / checkpoint[f"{MODEL}{name}.weight"].float().norm()).item()
             for name in names]
    assert 0.01 < min(sizes) and 0.1 < sum(sizes) / len(sizes) < 0.3


def text_weights(path):
    """A Hugging Face file's text weights under the single file's names."""
    return {key.removeprefix("language_model."): value for key, value in load_file(path).items()
            if key.startswith("language_model.")}


@pytest.mark.parametrize("weights", ["bf16", "fp32"])
def test_gemma_file_and_folder_agree(tmp_path, weights):
    gemma.write_file(tmp_path / "file", weights=weights, seed=3)
    gemma.write_folder(tmp_path / "folder", weights=weights, seed=3)
    single, folder = load_file(tmp_path / "file"), text_weights(tmp_path / "folder/model.safetensors")
    assert folder.keys() == {key for key in single if key.startswith("model.")} and len(folder) == 48 * 13 + 2
    assert all(torch.equal(single[key], folder[key]) for key in folder)
    assert "model.layers.47.self_attn.q_norm.weight" in single
    assert {key.split(".")[0] for key in single} == {"model", "vision_model", "multi_modal_projector", "spiece_model"}
    assert single["spiece_model"].numpy().tobytes() == gemma.sentencepiece_model()


@pytest.mark.parametrize(("weights", "suffix"), [("fp8", ".weight_scale"), ("fp8_legacy", ".scale_weight")])
def test_gemma_fp8(tmp_path, weights, suffix):
    from comfy.utils import convert_old_quants

    gemma.write_file(tmp_path / "fp8", weights=weights)
    gemma.write_file(tmp_path / "fp32", weights="fp32")
    held, plain = load_file(tmp_path / "fp8"), load_file(tmp_path / "fp32")
    layers = [key.removesuffix(".weight") for key, value in held.items() if value.dtype == torch.float8_e4m3fn
              and key.endswith(".weight")]
    assert len(layers) == 48 * 7
    for layer in layers:
        value = held[layer + ".weight"].float() * held[layer + suffix]
        assert (value - plain[layer + ".weight"]).norm() / plain[layer + ".weight"].norm() < 0.04
    assert ("scaled_fp8" in held) == (weights == "fp8_legacy")
    converted, _ = convert_old_quants(held, metadata={})
    assert all({layer + ".comfy_quant", layer + ".weight_scale"} <= converted.keys() for layer in layers)


def test_gemma_wrong_size(tmp_path):
    gemma.write_file(tmp_path / "other", hidden=16, layers=2)
    tensors = load_file(tmp_path / "other")
    assert tensors["model.embed_tokens.weight"].shape == (640, 16)
    assert not any(key.startswith("model.layers.2.") for key in tensors)
    with pytest.raises(ValueError, match="bf16"):
        gemma.write_file(tmp_path / "none", weights="int4")


def test_gemma_runs_with_49_states(folder):
    from transformers import Gemma3ForConditionalGeneration

    model = Gemma3ForConditionalGeneration.from_pretrained(folder / "text_encoders/gemma-3-12b-it", dtype=torch.float32)
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([[2, 300, 301]]), output_hidden_states=True).hidden_states
    assert len(states) == 49 and states[-1].shape == (1, 3, 32) and all(state.isfinite().all() for state in states)


def test_tokenizer_without_protobuf(folder, monkeypatch):
    import sentencepiece
    from transformers import AutoTokenizer

    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    processor = sentencepiece.SentencePieceProcessor(model_proto=gemma.sentencepiece_model())
    assert processor.get_piece_size() == 640
    for place in ("text_encoders/gemma-3-12b-it", "diffusers/LTX-2/tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder / place)
        for text in [*TEXTS, *gemma.SENTENCES]:
            assert tokenizer(text).input_ids == [2, *processor.encode(text)], text
            assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=text != "<mask>")[-5:] == text[-5:]


@pytest.mark.parametrize(("version", "kind", "weights", "count", "size"), [
    ("2.0", "distilled", "bf16", 4052, 43_285_058_186), ("2.0", "distilled", "fp8", 6404, 27_078_716_346),
    ("2.3", "distilled", "fp8", 8871, 29_531_884_062), ("2.3", "dev", "fp8", 8939, 29_145_431_166)])
def test_published_counts(version, kind, weights, count, size):
    tensors = ltx2.published_tensors(weights, version, kind)
    dtypes = collections.Counter(str(value.dtype) for value in tensors.values())
    header = size - sum(value.nbytes for value in tensors.values())
    log.info("LTX-%s %s: %d tensors, %s, %d bytes of header", version, weights, len(tensors), dict(dtypes), header)
    assert len(tensors) == count
    # What the published file has beyond these tensors' bytes must be its header: some 100 bytes a tensor.
    assert 100 < header / count < 300
    layers = [key for key, value in tensors.items() if value.dtype == torch.float8_e4m3fn]
    assert len(layers) == {4052: 0, 6404: 1176, 8871: 1462, 8939: 1496}[count]
    parts = collections.Counter(place[0] for place in map(to_diffusers, tensors) if place)
    if weights == "bf16":
        assert parts == {"transformer": 3510, "connectors": 59, "vae": 184, "audio_vae": 102, "vocoder": 194}
        sys.stdout.write(f"\nLTX-2 19B: {len(tensors)} tensors, {dict(parts)}\n")


def test_lowered():
    sampler = {"width": 768, "height": 512, "frames": 121, "seed": 7}
    prompt = {"1": {"class_type": "Xavi9LTX2Sampler", "inputs": sampler},
              "2": {"class_type": "Xavi9VideoSave", "inputs": {"width": 768}}}
    small = models.lowered(prompt)
    assert small["1"]["inputs"] == {"width": 256, "height": 160, "frames": 17, "seed": 7}
    assert small["2"] == prompt["2"] and prompt["1"]["inputs"]["width"] == 768
    prompt["3"] = {"class_type": "Xavi9LTX2Upscale", "inputs": {"seed": 7}}
    small = models.lowered(prompt)
    assert (small["1"]["inputs"]["width"], small["1"]["inputs"]["height"]) == (256, 135)
    assert small["3"] == prompt["3"]


def test_put_models_again_writes_nothing(folder):
    times = {name: (folder / name).stat().st_mtime_ns for name in models.FILES}
    models.put_models(folder)
    assert times == {name: (folder / name).stat().st_mtime_ns for name in models.FILES}
    assert not list(folder.glob(".tiny-*"))
