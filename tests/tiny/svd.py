"""SVD-XT in a few megabytes: random weights in the published file formats, from a seed.

The single file is built from ComfyUI's own classes, which bear its key names, so that nothing here rests on the
pack's mapping. ComfyUI has to be importable, with its arguments set, as tests/conftest.py does it.
"""

import json
from pathlib import Path

import torch
from tiny.svd_names import CONDITIONER, FIRST_STAGE, MODEL, TEXT, VISUAL, components
from tiny.weights import dtype, fan_in, normal, save

# What the published folder's config.json files say, component by component.
PUBLISHED = {
    "unet": {
        "_class_name": "UNetSpatioTemporalConditionModel", "_diffusers_version": "0.24.0.dev0",
        "addition_time_embed_dim": 256, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 1024,
        "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * 3 + ["DownBlockSpatioTemporal"],
        "in_channels": 8, "layers_per_block": 2, "num_attention_heads": [5, 10, 20, 20], "num_frames": 25,
        "out_channels": 4, "projection_class_embeddings_input_dim": 768, "sample_size": 96,
        "transformer_layers_per_block": 1,
        "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 3},
    "vae": {
        "_class_name": "AutoencoderKLTemporalDecoder", "_diffusers_version": "0.24.0.dev0",
        "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
        "force_upcast": True, "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "out_channels": 3,
        "sample_size": 768, "scaling_factor": 0.18215},
    "image_encoder": {
        "architectures": ["CLIPVisionModelWithProjection"], "attention_dropout": 0.0, "dropout": 0.0,
        "hidden_act": "gelu", "hidden_size": 1280, "image_size": 224, "initializer_factor": 1.0,
        "initializer_range": 0.02, "intermediate_size": 5120, "layer_norm_eps": 1e-05,
        "model_type": "clip_vision_model", "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 32,
        "patch_size": 14, "projection_dim": 1024},
}

# 64 channels to a head in the UNet and 80 in the CLIP, as published: a loader reads the heads from the widths.
TINY = {
    "unet": PUBLISHED["unet"] | {"block_out_channels": [64, 64, 64, 128], "cross_attention_dim": 32,
                                 "num_attention_heads": [1, 1, 1, 2]},
    "vae": PUBLISHED["vae"] | {"block_out_channels": [32] * 4},
    "image_encoder": PUBLISHED["image_encoder"] | {
        "hidden_size": 80, "intermediate_size": 160, "num_attention_heads": 1, "num_hidden_layers": 3,
        "projection_dim": 32},
}

SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.24.0.dev0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False, "interpolation_type": "linear",
    "num_train_timesteps": 1000, "prediction_type": "v_prediction", "set_alpha_to_one": False, "sigma_max": 700.0,
    "sigma_min": 0.002, "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading",
    "timestep_type": "continuous", "trained_betas": None, "use_karras_sigmas": True}

FEATURE_EXTRACTOR = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224}}

INDEX = {
    "_class_name": "StableVideoDiffusionPipeline", "_diffusers_version": "0.24.0.dev0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"], "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"]}


def core_unet(config: dict, device: str = "meta") -> torch.nn.Module:
    """ComfyUI's own UNet of diffusers' unet config, float32, weights not set."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    first, *_ = channels = config["block_out_channels"]
    return UNetModel(
        image_size=32, in_channels=8, out_channels=4, model_channels=first, num_res_blocks=[2] * 4,
        channel_mult=[width // first for width in channels], num_head_channels=64, use_spatial_transformer=True,
        transformer_depth=[1] * 6 + [0] * 2, transformer_depth_output=[1] * 9 + [0] * 3, transformer_depth_middle=1,
        context_dim=config["cross_attention_dim"], use_linear_in_transformer=True, num_classes="sequential",
        adm_in_channels=config["projection_class_embeddings_input_dim"], legacy=False, use_temporal_attention=True,
        use_temporal_resblock=True, extra_ff_mix_layer=True, use_spatial_context=True,
        merge_strategy="learned_with_images", merge_factor=0.0, video_kernel_size=[3, 1, 1],
        attn_precision=torch.float32, device=device, operations=comfy.ops.disable_weight_init)


def core_vae(config: dict) -> dict[str, torch.nn.Module]:
    """ComfyUI's own encoder, decoder (temporal) and plain_decoder of diffusers' vae config, weights not set."""
    from comfy.ldm.modules.diffusionmodules.model import Decoder, Encoder
    from comfy.ldm.modules.temporal_ae import VideoDecoder

    first, *_ = channels = config["block_out_channels"]
    plain = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": first,
             "ch_mult": [width // first for width in channels], "num_res_blocks": 2, "attn_resolutions": [],
             "dropout": 0.0}
    return {"encoder": Encoder(**plain), "decoder": VideoDecoder(video_kernel_size=[3, 1, 1], alpha=0.0, **plain),
            "plain_decoder": Decoder(**plain)}


def _clip(config: dict, words: int) -> dict[str, tuple[int, ...]]:
    """OpenCLIP's names and shapes below TEXT: the image's tower, and what is left of the text's."""
    width, inner, out = config["hidden_size"], config["intermediate_size"], config["projection_dim"]
    shapes = {"visual.class_embedding": (width,), "visual.conv1.weight": (width, 3, 14, 14),
              "visual.positional_embedding": (257, width), "visual.proj": (width, out), "logit_scale": (),
              "positional_embedding": (77, out), "text_projection": (out, out), "token_embedding.weight": (words, out)}
    layer = {"attn.in_proj_": (3 * width, width), "attn.out_proj.": (width, width), "mlp.c_fc.": (inner, width),
             "mlp.c_proj.": (width, inner), "ln_1.": (width,), "ln_2.": (width,)}
    layers = {f"visual.transformer.resblocks.{index}.{name}": shape for index in range(config["num_hidden_layers"])
              for name, shape in layer.items()}
    norms = {"visual.ln_pre.": (width,), "visual.ln_post.": (width,), "ln_final.": (out,)}
    for name, shape in (layers | norms).items():
        shapes |= {name + "weight": shape, name + "bias": shape[:1]}
    return shapes


def _shapes(config: dict, words: int) -> dict[str, torch.Tensor]:
    """Meta tensors, float32, of the whole published file that these configs describe, unused ones included."""
    with torch.device("meta"):
        vae = core_vae(config["vae"])
        modules = {MODEL: core_unet(config["unet"]), FIRST_STAGE + "encoder.": vae["encoder"],
                   FIRST_STAGE + "decoder.": vae["decoder"], CONDITIONER + "encoder.": vae["encoder"],
                   CONDITIONER + "decoder.": vae["plain_decoder"],
                   CONDITIONER + "quant_conv.": torch.nn.Conv2d(8, 8, 1),
                   CONDITIONER + "post_quant_conv.": torch.nn.Conv2d(4, 4, 1)}
        tensors = {prefix + key: value for prefix, module in modules.items()
                   for key, value in module.state_dict().items()}
        clip = _clip(config["image_encoder"], words)
        return tensors | {TEXT + key: torch.empty(shape) for key, shape in clip.items()}


# A plain random model hardly hears what the CLIP sees and the numbers, and tests would pass with wrong ones; its frames
# would be grain that clips.
_GAINS = {".attn.in_proj_": 2.0, ".label_emb.0.2.": 2.0, "first_stage_model.decoder.conv_out": 0.8,
          "first_stage_model.decoder.up.": 0.5}


def _value(key: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """One tensor's random values, float32."""
    name = f"{seed} svd {key}"
    if key.endswith("mix_factor"):
        return normal(name, shape)
    if key.endswith(".bias"):
        return normal(name, shape, 0.02)
    if key.endswith(".weight") and len(shape) == 1:
        return 1 + normal(name, shape, 0.1)
    if key.endswith("embedding"):
        return normal(name, shape, 0.3)
    inputs = shape[0] if key == VISUAL + "proj" else fan_in(shape)
    gain = next((gain for part, gain in _GAINS.items() if part in key), 1.0)
    values = normal(name, shape, gain * inputs ** -0.5)
    if key == MODEL + "input_blocks.0.0.weight":
        # The image's latents, so that the frames have more of it than of the noise.
        values[:, 4:] *= 3
    return values


def _random(seed: int) -> dict[str, torch.Tensor]:
    return {key: _value(key, value.shape, seed) for key, value in sorted(_shapes(TINY, words=16).items())}


def _stored(tensors: dict[str, torch.Tensor], weights: str) -> dict[str, torch.Tensor]:
    if weights not in ("fp16", "fp32"):
        raise ValueError(f"weights={weights!r}; known: fp16, fp32")
    return {key: value.to(dtype(weights)) for key, value in tensors.items()}


def _saved_by_comfyui(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """ImageOnlyCheckpointSave's layout: what ComfyUI had in memory, the CLIP under transformers' names."""
    kept = {key: value for key, value in tensors.items() if key.startswith((MODEL, FIRST_STAGE))}
    kept |= {VISUAL + name: value for name, value in components(tensors)["image_encoder"].items()}
    return kept


def write_checkpoint(path: Path, *, weights: str = "fp16", layout: str = "published", seed: int = 0) -> None:
    """Writes the single file. weights: fp16 or fp32. layout: published, or comfyui as ImageOnlyCheckpointSave saves.

    Raises ValueError for others.
    """
    if layout not in ("published", "comfyui"):
        raise ValueError(f"layout={layout!r}; known: published, comfyui")
    tensors, metadata = _random(seed), {"stand_in": f"random weights, {seed}"}
    if layout == "comfyui":
        tensors = _saved_by_comfyui(tensors)
    tensors = _stored(tensors, weights)
    if layout == "comfyui":
        tensors |= {"edm_vpred.sigma_max": torch.tensor(700.0), "edm_vpred.sigma_min": torch.tensor(0.002)}
        metadata |= {"modelspec.architecture": "stable-video-diffusion-img2vid-v1",
                     "modelspec.implementation": "sgm", "modelspec.sai_model_spec": "1.0.0",
                     "modelspec.title": "ComfyUI 1"}
    save(path, tensors, metadata)


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_folder(path: Path, *, weights: tuple[str, ...] = ("fp32",), seed: int = 0) -> None:
    """Writes write_checkpoint()'s weights as a diffusers folder, laid out as the published one on the hub.

    weights: fp32, fp16 (the variant of that name) or both. Raises ValueError for another.
    """
    for component, tensors in components(_random(seed)).items():
        _write_json(path / component / "config.json", TINY[component])
        stem = "model" if component == "image_encoder" else "diffusion_pytorch_model"
        for kind in weights:
            name = f"{stem}.safetensors" if kind == "fp32" else f"{stem}.{kind}.safetensors"
            save(path / component / name, _stored(tensors, kind), {"format": "pt"})
    _write_json(path / "scheduler" / "scheduler_config.json", SCHEDULER)
    _write_json(path / "feature_extractor" / "preprocessor_config.json", FEATURE_EXTRACTOR)
    _write_json(path / "model_index.json", INDEX)


def published_tensors() -> dict[str, torch.Tensor]:
    """Meta tensors of the whole published file, float32."""
    return _shapes(PUBLISHED, words=49408)
