"""LTX-2 in a few megabytes: random weights in the published file formats, from a seed.

The single file is built from ComfyUI's own classes, which bear its key names, so that nothing here rests on the
pack's mapping. ComfyUI has to be importable, with its arguments set, as tests/conftest.py does it.
"""

import inspect
import json
from pathlib import Path

import torch
from tiny import configs, gemma
from tiny.names import CONNECTORS, MODEL, to_diffusers
from tiny.weights import dtype, fan_in, normal, quantize, quantize_fp4, save

_STATISTICS = "vae.per_channel_statistics."
# In the file of LTX-2 2.0 but used by nobody: three of the five statistics of the video latents.
_UNUSED = ("channel", "mean-of-stds", "mean-of-stds_over_std-of-means")
_TEXT_STATES = 49  # Gemma's embeddings and the output of each of its 48 layers
_QUANTIZED = ("attn1", "attn2", "audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn", "ff",
              "audio_ff")
published_config = configs.published_config


def _modules(config: dict) -> dict[str, torch.nn.Module]:
    """ComfyUI's own modules on the meta device, by the prefix of their keys in the single file."""
    import comfy.ops
    from comfy.ldm.lightricks.av_model import LTXAVModel
    from comfy.ldm.lightricks.vae.causal_audio_autoencoder import CausalAudioAutoencoder
    from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE
    from comfy.ldm.lightricks.vocoders.vocoder import Vocoder, VocoderWithBWE

    vocoder = VocoderWithBWE if "bwe" in config["vocoder"] else Vocoder
    with torch.device("meta"):
        return {MODEL: LTXAVModel(dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init,
                                  **config["transformer"]),
                "vae.": VideoVAE(config=config["vae"]), "audio_vae.": CausalAudioAutoencoder(config["audio_vae"]),
                "vocoder.": vocoder(config["vocoder"])}


def _shapes(config: dict) -> dict[str, torch.Tensor]:
    """Meta tensors, float32, of the whole single file that this config describes."""
    tensors = {prefix + key: value for prefix, module in _modules(config).items()
               for key, value in module.state_dict().items()}
    it, text = config["transformer"], "text_embedding_projection."
    states = it["caption_channels"] * _TEXT_STATES
    if it.get("caption_proj_before_connector"):
        for modality, width in (("video", it["cross_attention_dim"]), ("audio", it["audio_cross_attention_dim"])):
            tensors[f"{text}{modality}_aggregate_embed.weight"] = torch.empty(width, states, device="meta")
            tensors[f"{text}{modality}_aggregate_embed.bias"] = torch.empty(width, device="meta")
        # With them left out there are as many tensors as third parties count in the published file.
        for name in _UNUSED:
            tensors.pop(_STATISTICS + name, None)
    else:
        weight = torch.empty(it["caption_channels"], states, device="meta")
        tensors[text + "aggregate_embed.weight"] = weight
        for name in _UNUSED:
            tensors[_STATISTICS + name] = torch.empty(128, device="meta")
    return tensors


def linears(tensors: dict[str, torch.Tensor]) -> list[str]:
    """The names of the transformer's Linears without their `.weight`, in the single file's spelling, bare."""
    return sorted(key[len(MODEL):-len(".weight")] for key, value in tensors.items() if key.startswith(MODEL)
                  and not key.startswith(CONNECTORS) and key.endswith(".weight") and value.ndim == 2)


def quantized_layers(tensors: dict[str, torch.Tensor], config: dict, kind: str = "distilled") -> list[str]:
    """The keys, without `.weight`, of the Linears that the FP8 file quantizes: those of the inner blocks.

    Published are blocks 1 to 42 of 48; of LTX-2.3 so many layers as 43 blocks have, 44 of dev, and it is not known
    which. Of a tiny model's, all but the first and the last.
    """
    count = config["transformer"]["num_layers"]
    last = 42 if "bwe" not in config["vocoder"] else 44 if kind == "dev" else 43
    inner = range(1, last + 1 if count == 48 else count - 1)
    blocks = tuple(f"transformer_blocks.{block}.{part}." for block in inner for part in _QUANTIZED)
    return [MODEL + name for name in linears(tensors) if name.startswith(blocks)]


def _statistic(key: str, shape: tuple[int, ...], seed: str) -> torch.Tensor:
    if key.endswith(".channel"):
        return torch.arange(128).float()
    values = normal(seed, shape)
    return 0.1 * values if key.endswith("mean-of-means") else 0.75 + 0.25 * torch.tanh(values)


def _value(key: str, shape: tuple[int, ...], seed: int, kind: str) -> torch.Tensor:
    """One tensor's random values, float32. The VAEs and the vocoder are the same in both kinds, as published."""
    own = kind if key.startswith((MODEL, "text_embedding_projection.")) else ""
    seed = f"{seed} {own} {key}"
    if ".per_channel_statistics." in key:
        return _statistic(key, shape, seed)
    if key.endswith("_norm.weight"):
        # A plain random model hardly hears the text, and tests would pass with a wrong prompt.
        return (1 + normal(seed, shape, 0.1)) * (16 if "attn2.q_norm" in key else 1)
    if key.endswith("learnable_registers"):
        return normal(seed, shape, 0.1)
    if "scale_shift_table" in key:
        return normal(seed, shape, shape[-1] ** -0.5)
    if key.endswith(".bias"):
        return normal(seed, shape, 0.02)
    if key.startswith("vocoder."):
        return _vocoder(key, shape, seed)
    if "attn2.to_out.0." in key:
        return normal(seed, shape, 8 * (3 * fan_in(shape)) ** -0.5)
    if key.startswith("vae.decoder."):
        return _smooth(key, shape, seed)
    return normal(seed, shape, fan_in(shape) ** -0.5)


def _vocoder(key: str, shape: tuple[int, ...], seed: str) -> torch.Tensor:
    if ".ups." in key:
        # A transposed convolution: (in, out, kernel), and each output meets two steps of the kernel.
        return normal(seed, shape, (2 * shape[0]) ** -0.5)
    if key.endswith((".alpha", ".beta")):
        return normal(seed, shape, 0.1)  # LTX-2.3's activations take their exponentials
    if key.endswith((".filter", ".mel_basis")):
        positive = normal(seed, shape).abs()
        return positive / positive.sum(-1, keepdim=True)
    # So that waves stay inside of -1..1, where they would be clipped.
    loud = 0.03 if "bwe_generator." in key else 0.05 if "vocoder.vocoder." in key else 0.6
    return normal(seed, shape, (loud if "conv_post" in key else 1) * fan_in(shape) ** -0.5)


def _smooth(key: str, shape: tuple[int, ...], seed: str) -> torch.Tensor:
    """A decoder's 3x3x3 weight: where it grows pixels they get nearly the same, so that frames are not mere grain."""
    pixels = 16 if "conv_out" in key else 8 if ".conv.conv." in key else 1
    common = normal(seed, (shape[0] // pixels, *shape[1:]))
    if pixels == 16:
        # What comes in is positive on average; without this each frame has one colour and clips.
        common = 1.1 * (common - common.mean((1, 2, 3, 4), keepdim=True))
    if "res_blocks" in key:
        common = 0.3 * common
    grain = 0.1 * normal(seed + " grain", shape) if pixels > 1 else 0
    return (common.repeat_interleave(pixels, 0) + grain) * fan_in(shape) ** -0.5


def _random(config: dict, kind: str, seed: int) -> dict[str, torch.Tensor]:
    if kind not in ("distilled", "dev"):
        raise ValueError(f"kind={kind!r}; known: distilled, dev")
    return {key: _value(key, value.shape, seed, kind) for key, value in sorted(_shapes(config).items())}


def _stored(tensors: dict[str, torch.Tensor], config: dict, weights: str,
            kind: str = "distilled") -> dict[str, torch.Tensor]:
    """The tensors as the file holds them: AdaLN tables stay float32, FP8 layers get their two scales."""
    stored = {key: value.contiguous() if key.startswith(MODEL) and "scale_shift_table" in key
              else value.to(dtype(weights)) for key, value in tensors.items()}
    if weights == "fp8":
        for layer in quantized_layers(tensors, config, kind):
            stored[layer + ".weight"], stored[layer + ".weight_scale"] = quantize(tensors[layer + ".weight"])
            # Static, one per layer, wide enough for what the tiny layers meet.
            share = torch.tensor((len(layer) * 7 % 16) / 16.0, device=tensors[layer + ".weight"].device)
            stored[layer + ".input_scale"] = (32.0 + 32.0 * share) / 448.0
    if weights == "fp4":
        for layer in quantized_layers(tensors, config, kind):
            weight = layer + ".weight"
            stored[weight], stored[weight + "_scale"], stored[weight + "_scale_2"] = quantize_fp4(tensors[weight])
    return stored


def _metadata(config: dict, kind: str, seed: int, layers: dict[str, str], version: str) -> dict[str, str]:
    metadata = {"config": json.dumps(config), "model_version": version,
                "stand_in": f"random weights, {kind}, {seed}"}
    if layers:
        formats = {layer: {"format": form} for layer, form in layers.items()}
        metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": formats})
    return metadata


def write_checkpoint(path: Path, *, kind: str = "distilled", weights: str = "fp8", seed: int = 0,
                     version: str = "2.0") -> None:
    """Writes the complete single file: 608 tensors, or 720 with the 56 FP8 layers' scales; diffusers takes 605.

    kind: distilled or dev, weights: fp4 (NVFP4 in the layers of FP8), fp8, bf16 or fp32. Raises ValueError for another.
    version: 2.0 or 2.3.
    """
    config = configs.tiny_config(version)
    tensors = _random(config, kind, seed)
    layers = quantized_layers(tensors, config) if weights in ("fp8", "fp4") else []
    form = "nvfp4" if weights == "fp4" else "float8_e4m3fn"
    save(path, _stored(tensors, config, weights), _metadata(config, kind, seed, dict.fromkeys(layers, form), version))


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _write_sharded(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    """The hub's way with a component too big for one file; an index says which key is where."""
    stem, keys = "diffusion_pytorch_model", sorted(tensors)
    index = {}
    for shard in range(shards):
        name = f"{stem}-{shard + 1:05}-of-{shards:05}.safetensors"
        part = keys[shard::shards]
        save(folder / name, {key: tensors[key] for key in part}, {"format": "pt"})
        index |= dict.fromkeys(part, name)
    size = sum(value.nbytes for value in tensors.values())
    _write_json(folder / f"{stem}.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})


def write_folder(path: Path, *, seed: int = 0, version: str = "2.0") -> None:
    """Writes the dev weights in BF16 as a diffusers folder, laid out as Lightricks/LTX-2 on the hub is.

    The transformer and the text encoder (float32) come in shards, as there.
    """
    config, described = configs.tiny_config(version), configs.diffusers_config(version)
    parts = {component: {} for component in described}
    for key, value in _stored(_random(config, "dev", seed), config, "bf16").items():
        if place := to_diffusers(key):
            parts[place[0]][place[1]] = value
    for component, tensors in parts.items():
        _write_json(path / component / "config.json", described[component])
        if component == "transformer":
            _write_sharded(path / component, tensors, 2)
        else:
            save(path / component / "diffusion_pytorch_model.safetensors", tensors, {"format": "pt"})
    _write_json(path / "scheduler" / "scheduler_config.json", configs.SCHEDULER)
    gemma.write_text_encoder(path / "text_encoder", weights="fp32", seed=seed, max_shard_size="1MB")
    gemma.write_tokenizer(path / "tokenizer")
    vocoder = ["ltx2", described["vocoder"]["_class_name"]]
    _write_json(path / "model_index.json", {**configs.INDEX, "vocoder": vocoder})


def core_upscaler(config: dict = configs.UPSCALER) -> torch.nn.Module:
    """ComfyUI's own upsampler in the tiny size, on the CPU, weights not set."""
    import comfy.ops
    from comfy.ldm.lightricks.latent_upsampler import LatentUpsampler

    # ComfyUI 0.27 and older make plain torch layers and have no such argument.
    takes = inspect.signature(LatentUpsampler.from_config).parameters
    options = {"operations": comfy.ops.disable_weight_init} if "operations" in takes else {}
    return LatentUpsampler.from_config(config, **options)


def write_upscaler(path: Path, *, seed: int = 0, version: str = "2.0") -> None:
    """Writes a spatial x2 latent upsampler, BF16: (B,128,F,h,w) to (B,128,F,2h,2w), denormalized latents."""
    config = configs.UPSCALER if version == "2.0" else configs.UPSCALER_23
    model = core_upscaler(config)
    kernel = model.state_dict().get("upsampler.blur_down.kernel")
    tensors = {}
    for key, value in model.state_dict().items():
        if value.ndim > 1:
            tensors[key] = normal(f"{seed} {key}", value.shape, fan_in(value.shape) ** -0.5)
        else:
            tensors[key] = normal(f"{seed} {key}", value.shape, 0.02) + float("norm" in key and "weight" in key)
    if kernel is not None:
        tensors["upsampler.blur_down.kernel"] = kernel
    save(path, {key: value.to(torch.bfloat16) for key, value in tensors.items()},
         {"config": json.dumps(config), "model_version": version})


def lora_key(name: str, spelling: str, half: str) -> str:
    """half: A (down) or B (up)."""
    if spelling == "trainer":
        return f"diffusion_model.{name}.lora_{half}.weight"
    if spelling == "diffusers":
        renamed = to_diffusers(f"{MODEL}{name}.weight")[1].removesuffix(".weight")
        return f"transformer.{renamed}.lora_{half}.weight"
    if spelling == "bare":
        return f"{name}.lora_{half}.default.weight"
    if spelling == "kohya":
        return f"lora_unet_{name.replace('.', '_')}.lora_{'down' if half == 'A' else 'up'}.weight"
    raise ValueError(f"spelling={spelling!r}; known: trainer, diffusers, bare, kohya")


def write_lora(path: Path, *, spelling: str = "trainer", rank: int = 4, seed: int = 0, version: str = "2.0") -> None:
    """Writes a LoRA, BF16, of all 138 Linears of the transformer; every spelling describes the same change B @ A.

    spelling: trainer, diffusers, bare or kohya, whose alpha is rank / 2. Raises ValueError for another.
    """
    tensors, shapes = {}, _shapes(configs.tiny_config(version))
    for name in linears(shapes):
        outputs, inputs = shapes[f"{MODEL}{name}.weight"].shape
        down = normal(f"{seed} lora A {name}", (rank, inputs), inputs ** -0.5).to(torch.bfloat16)
        up = normal(f"{seed} lora B {name}", (outputs, rank), 0.15 * rank ** -0.5).to(torch.bfloat16)
        if spelling == "kohya":
            # Times 2 for the alpha's half, which BF16 holds exactly.
            up = up * 2
            tensors[f"lora_unet_{name.replace('.', '_')}.alpha"] = torch.tensor(rank / 2)
        tensors |= {lora_key(name, spelling, "A"): down, lora_key(name, spelling, "B"): up}
    save(path, tensors, {"format": "pt"})


def published_tensors(weights: str = "fp8", version: str = "2.0",
                      kind: str = "distilled") -> dict[str, torch.Tensor]:
    """Meta tensors of the published 19B or 22B file; shapes and dtypes as stored.

    4052 of the 19B, 6404 with weights fp8; 5947 of the 22B, with weights fp8 8871, or 8939 of dev.
    """
    config = published_config(version)
    return _stored(_shapes(config), config, weights, kind)


def published_keys(weights: str = "fp8", version: str = "2.0", kind: str = "distilled") -> dict[str, tuple[int, ...]]:
    """published_tensors() as key -> shape; a scalar's shape is ()."""
    return {key: tuple(value.shape) for key, value in published_tensors(weights, version, kind).items()}
