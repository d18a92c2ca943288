"""What a checkpoint says about its model, as the arguments of diffusers' classes.

The names on the left are Lightricks', from the `config` in the metadata of ltx-2-19b-*.safetensors and
ltx-2.3-22b-*.safetensors; what a file leaves out is that model's own value. The counterparts are those of
scripts/convert_ltx2_to_diffusers.py in the diffusers repo.
"""

import json
from collections.abc import Mapping

CONNECTOR_REGISTERS = 128
CONNECTOR_MAX_POSITIONS = 4096

LTX2_19B = {
    "transformer": {
        "in_channels": 128, "num_attention_heads": 32, "attention_head_dim": 128, "cross_attention_dim": 4096,
        "audio_in_channels": 128, "audio_num_attention_heads": 32, "audio_attention_head_dim": 64,
        "audio_cross_attention_dim": 2048, "num_layers": 48, "caption_channels": 3840, "rope_type": "split",
        "frequencies_precision": "float64", "timestep_scale_multiplier": 1000,
        "av_ca_timestep_scale_multiplier": 1000, "positional_embedding_theta": 10000.0,
        "positional_embedding_max_pos": [20, 2048, 2048], "audio_positional_embedding_max_pos": [20],
        "connector_attention_head_dim": 128, "connector_num_attention_heads": 30, "connector_num_layers": 2,
        "norm_eps": 1e-6, "apply_gated_attention": False, "connector_apply_gated_attention": False,
        "cross_attention_adaln": False, "caption_proj_before_connector": False,
    },
    "vae": {
        "latent_channels": 128, "in_channels": 3, "out_channels": 3, "patch_size": 4, "causal_decoder": False,
        "timestep_conditioning": False, "encoder_base_channels": 128, "decoder_base_channels": 128,
        "encoder_blocks": [
            ["res_x", {"num_layers": 4}], ["compress_space_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 6}], ["compress_time_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 6}], ["compress_all_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 2}], ["compress_all_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 2}],
        ],
        "decoder_blocks": [
            ["res_x", {"num_layers": 5}], ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 5}], ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 5}], ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 5}],
        ],
    },
    "audio_vae": {
        "model": {"params": {"ddconfig": {
            "ch": 128, "ch_mult": [1, 2, 4], "num_res_blocks": 2, "attn_resolutions": [], "in_channels": 2,
            "out_ch": 2, "resolution": 256, "z_channels": 8, "mel_bins": 64, "norm_type": "pixel",
            "causality_axis": "height", "mid_block_add_attention": False, "double_z": True,
        }, "sampling_rate": 16000}},
        "preprocessing": {"stft": {"hop_length": 160}},
    },
    "vocoder": {
        "upsample_initial_channel": 1024, "upsample_rates": [6, 5, 2, 2, 2],
        "upsample_kernel_sizes": [16, 15, 8, 4, 4], "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]], "output_sampling_rate": 24000,
    },
}  # fmt: skip
GENERATOR_22B = {
    "resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "activation": "snakebeta", "use_tanh_at_final": False, "use_bias_at_final": False,
}  # fmt: skip
# Where LTX-2.3 22B differs.
LTX23_22B = {
    "transformer": {
        "connector_num_attention_heads": 32, "connector_num_layers": 8, "audio_connector_num_attention_heads": 32,
        "audio_connector_attention_head_dim": 64, "apply_gated_attention": True,
        "connector_apply_gated_attention": True, "cross_attention_adaln": True, "caption_proj_before_connector": True,
    },
    "vae": {
        "spatial_padding_mode": "zeros",
        "encoder_blocks": [
            ["res_x", {"num_layers": 4}], ["compress_space_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 6}], ["compress_time_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 4}], ["compress_all_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 2}], ["compress_all_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 2}],
        ],
        "decoder_blocks": [
            ["res_x", {"num_layers": 4}], ["compress_space", {"multiplier": 2}],
            ["res_x", {"num_layers": 6}], ["compress_time", {"multiplier": 2}],
            ["res_x", {"num_layers": 4}], ["compress_all", {"multiplier": 1}],
            ["res_x", {"num_layers": 2}], ["compress_all", {"multiplier": 2}],
            ["res_x", {"num_layers": 2}],
        ],
    },
    "vocoder": {
        "vocoder": {
            **GENERATOR_22B, "upsample_initial_channel": 1536, "upsample_rates": [5, 2, 2, 2, 2, 2],
            "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
        },
        "bwe": {
            **GENERATOR_22B, "upsample_initial_channel": 512, "upsample_rates": [6, 5, 2, 2, 2],
            "upsample_kernel_sizes": [12, 11, 4, 4, 4], "input_sampling_rate": 16000,
            "output_sampling_rate": 48000, "hop_length": 80, "n_fft": 512, "num_mels": 64,
        },
    },
}  # fmt: skip
STEPS = {"space": "spatial", "time": "temporal", "all": "spatiotemporal"}


def over(base: Mapping, given: Mapping) -> dict:
    """`base` with the values of `given`, level by level."""
    merged = {**base, **given}
    for key, value in base.items():
        if isinstance(value, Mapping) and isinstance(given.get(key), Mapping):
            merged[key] = over(value, given[key])
    return merged


def described(metadata: Mapping[str, str], kind: str = "LTX-2") -> dict:
    """The file's config, what it leaves out filled in from LTX-2 19B, or from LTX-2.3 22B where the kind is that."""
    base = over(LTX2_19B, LTX23_22B) if kind == "LTX-2.3" else LTX2_19B
    return over(base, json.loads(metadata.get("config") or "{}"))


def transformer(config: Mapping) -> dict:
    it = config["transformer"]
    time, height, width = it["positional_embedding_max_pos"]
    same = (
        "in_channels", "num_attention_heads", "attention_head_dim", "cross_attention_dim", "audio_in_channels",
        "audio_num_attention_heads", "audio_attention_head_dim", "audio_cross_attention_dim", "num_layers",
        "caption_channels", "rope_type", "timestep_scale_multiplier", "norm_eps",
    )  # fmt: skip
    return {
        **{name: it[name] for name in same},
        "out_channels": it["in_channels"],
        "audio_out_channels": it["audio_in_channels"],
        "cross_attn_timestep_scale_multiplier": it["av_ca_timestep_scale_multiplier"],
        "rope_theta": it["positional_embedding_theta"],
        "rope_double_precision": it["frequencies_precision"] == "float64",
        "pos_embed_max_pos": time,
        "base_height": height,
        "base_width": width,
        "audio_pos_embed_max_pos": it["audio_positional_embedding_max_pos"][0],
        "gated_attn": it["apply_gated_attention"],
        "audio_gated_attn": it["apply_gated_attention"],
        "cross_attn_mod": it["cross_attention_adaln"],
        "audio_cross_attn_mod": it["cross_attention_adaln"],
        "use_prompt_embeddings": not it["caption_proj_before_connector"],
    }


def connectors(config: Mapping, text_width: int) -> dict:
    """text_width: values per token of the text encoder's stacked hidden states, the width of the first weight."""
    it = config["transformer"]
    heads, width = it["connector_num_attention_heads"], it["connector_attention_head_dim"]
    own = {}
    if it["caption_proj_before_connector"]:
        own = {
            "per_modality_projections": True,
            "proj_bias": True,
            "video_hidden_dim": it["num_attention_heads"] * it["attention_head_dim"],
            "audio_hidden_dim": it["audio_num_attention_heads"] * it["audio_attention_head_dim"],
        }
    return {
        **own,
        "video_connector_num_attention_heads": heads,
        "video_connector_attention_head_dim": width,
        "audio_connector_num_attention_heads": it.get("audio_connector_num_attention_heads", heads),
        "audio_connector_attention_head_dim": it.get("audio_connector_attention_head_dim", width),
        **{f"{kind}_connector_num_layers": it["connector_num_layers"] for kind in ("video", "audio")},
        **{f"{kind}_connector_num_learnable_registers": CONNECTOR_REGISTERS for kind in ("video", "audio")},
        **{f"{kind}_gated_attn": it["connector_apply_gated_attention"] for kind in ("video", "audio")},
        "caption_channels": it["caption_channels"],
        "text_proj_in_factor": text_width // it["caption_channels"],
        "connector_rope_base_seq_len": CONNECTOR_MAX_POSITIONS,
        "rope_theta": it["positional_embedding_theta"],
        "rope_double_precision": it["frequencies_precision"] == "float64",
        "rope_type": it["rope_type"],
    }


def vae(config: Mapping) -> dict:
    it = config["vae"]
    down, width = [], it["encoder_base_channels"]
    for name, options in it["encoder_blocks"]:
        if name.startswith("compress"):
            width *= options.get("multiplier", 1)
            down.append((width, STEPS[name.split("_")[1]]))
    up, width = [], it["decoder_base_channels"]
    for name, options in it["decoder_blocks"]:
        if name.startswith("compress"):
            width *= options.get("multiplier", 1)
            up.append((width, STEPS[name.split("_")[1]], options.get("residual", False), options.get("multiplier", 1)))
    decoder = list(zip(*up, strict=True))
    kinds = [kind for _, kind in down]
    return {
        "in_channels": it["in_channels"],
        "out_channels": it["out_channels"],
        "latent_channels": it["latent_channels"],
        "patch_size": it["patch_size"],
        "block_out_channels": tuple(width for width, _ in down),
        "down_block_types": ("LTX2VideoDownBlock3D",) * len(down),
        "spatio_temporal_scaling": (True,) * len(down),
        "downsample_type": tuple(kinds),
        "spatial_compression_ratio": it["patch_size"] * 2 ** sum(kind != "temporal" for kind in kinds),
        "temporal_compression_ratio": 2 ** sum(kind != "spatial" for kind in kinds),
        "layers_per_block": layers(it["encoder_blocks"]),
        "decoder_block_out_channels": decoder[0],
        "upsample_type": tuple(reversed(decoder[1])),
        "upsample_residual": decoder[2],
        "upsample_factor": decoder[3],
        "decoder_layers_per_block": layers(it["decoder_blocks"]),
        "decoder_spatio_temporal_scaling": (True,) * len(up),
        "decoder_inject_noise": (False,) * (len(up) + 1),
        "timestep_conditioning": it["timestep_conditioning"],
        "encoder_causal": True,
        "decoder_causal": it["causal_decoder"],
        "encoder_spatial_padding_mode": it.get("spatial_padding_mode", "zeros"),
        "decoder_spatial_padding_mode": it.get("spatial_padding_mode", "reflect"),
    }


def layers(blocks: list) -> tuple[int, ...]:
    return tuple(options["num_layers"] for name, options in blocks if name == "res_x")


def audio_vae(config: Mapping) -> dict:
    it = config["audio_vae"]["model"]["params"]["ddconfig"]
    return {
        "base_channels": it["ch"],
        "output_channels": it["out_ch"],
        "ch_mult": tuple(it["ch_mult"]),
        "num_res_blocks": it["num_res_blocks"],
        "attn_resolutions": it["attn_resolutions"] or None,
        "in_channels": it["in_channels"],
        "resolution": it["resolution"],
        "latent_channels": it["z_channels"],
        "norm_type": it["norm_type"],
        "causality_axis": it["causality_axis"],
        "mid_block_add_attention": it["mid_block_add_attention"],
        "mel_bins": it["mel_bins"],
        "double_z": it["double_z"],
        "sample_rate": config["audio_vae"]["model"]["params"]["sampling_rate"],
        "mel_hop_length": config["audio_vae"]["preprocessing"]["stft"]["hop_length"],
    }


def generator(it: Mapping, mel_bins: int, final_act_fn: str | None) -> dict:
    """A vocoder or the one that extends its band. Both channels' mel bins come in, one after the other."""
    # BigVGAN's activations run at twice the rate, against aliases (Lightricks, ltx_core/model/audio_vae/vocoder.py).
    activation = it.get("activation", "leaky_relu")
    return {
        "in_channels": 2 * mel_bins,
        "hidden_channels": it["upsample_initial_channel"],
        "upsample_factors": it["upsample_rates"],
        "upsample_kernel_sizes": it["upsample_kernel_sizes"],
        "resnet_kernel_sizes": it["resblock_kernel_sizes"],
        "resnet_dilations": it["resblock_dilation_sizes"],
        "act_fn": activation,
        "antialias": activation != "leaky_relu",
        "final_act_fn": final_act_fn,
        "final_bias": it.get("use_bias_at_final", True),
    }


def vocoder(config: Mapping) -> dict:
    it, mel_bins = config["vocoder"], config["audio_vae"]["model"]["params"]["ddconfig"]["mel_bins"]
    if not extends_band(config):
        return {**generator(it, mel_bins, "tanh"), "output_sampling_rate": it["output_sampling_rate"]}
    first, bwe = it["vocoder"], it["bwe"]
    # Lightricks clips the first one's wave; the converter of diffusers leaves that out.
    final = "tanh" if first.get("use_tanh_at_final", True) else "clamp"
    return {
        **generator(first, mel_bins, final),
        **{f"bwe_{name}": value for name, value in generator(bwe, bwe["num_mels"], None).items()},
        "filter_length": bwe["n_fft"],
        "window_length": bwe["n_fft"],
        "hop_length": bwe["hop_length"],
        "num_mel_channels": bwe["num_mels"],
        "input_sampling_rate": bwe["input_sampling_rate"],
        "output_sampling_rate": bwe["output_sampling_rate"],
    }


def extends_band(config: Mapping) -> bool:
    """Whether a second vocoder makes 48 kHz of what the first one gives."""
    return "bwe" in config["vocoder"]
