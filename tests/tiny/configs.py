"""What the published LTX-2 19B and LTX-2.3 22B files say of themselves, and the same for models of a few megabytes."""

import copy

# As third parties read it from the header of the published file. It has no audio_in_channels.
_TRANSFORMER = {
    "_class_name": "AVTransformer3DModel", "_diffusers_version": "0.25.1", "activation_fn": "gelu-approximate",
    "attention_bias": True, "attention_head_dim": 128, "attention_type": "default", "audio_attention_head_dim": 64,
    "audio_cross_attention_dim": 2048, "audio_num_attention_heads": 32, "audio_out_channels": 128,
    "audio_positional_embedding_max_pos": [20], "av_ca_timestep_scale_multiplier": 1000.0, "av_cross_ada_norm": True,
    "caption_channels": 3840, "causal_temporal_positioning": True, "connector_attention_head_dim": 128,
    "connector_norm_output": True, "connector_num_attention_heads": 30, "connector_num_layers": 2,
    "connector_num_learnable_registers": 128, "connector_positional_embedding_max_pos": [4096],
    "cross_attention_dim": 4096, "cross_attention_norm": True, "double_self_attention": False, "dropout": 0.0,
    "frequencies_precision": "float64", "in_channels": 128, "norm_elementwise_affine": False, "norm_eps": 1e-06,
    "norm_num_groups": 32, "num_attention_heads": 32, "num_embeds_ada_norm": 1000, "num_layers": 48,
    "num_vector_embeds": None, "only_cross_attention": False, "out_channels": 128,
    "positional_embedding_max_pos": [20, 2048, 2048], "positional_embedding_theta": 10000.0,
    "positional_embedding_type": "rope", "qk_norm": "rms_norm", "rope_type": "split", "share_ff": False,
    "standardization_norm": "rms_norm", "timestep_scale_multiplier": 1000, "upcast_attention": False,
    "use_audio_video_cross_attention": True, "use_embeddings_connector": True, "use_linear_projection": False,
    "use_middle_indices_grid": True,
}
# The same of LTX-2.3, as third parties copied it from the published file: what is new or another value there.
_TRANSFORMER_23 = {
    **_TRANSFORMER, "connector_num_attention_heads": 32, "connector_num_layers": 8, "apply_gated_attention": True,
    "connector_apply_gated_attention": True, "caption_projection_first_linear": False,
    "caption_projection_second_linear": False, "caption_proj_input_norm": False,
    "connector_learnable_registers_std": 1, "caption_proj_before_connector": True,
    "audio_connector_attention_head_dim": 64, "audio_connector_num_attention_heads": 32, "cross_attention_adaln": True,
    "text_encoder_norm_type": "per_token_rms",
}


def _vae(encoder_layers: list[int], multiplier: int, decoder_layers: int, decoder_base: int) -> dict:
    down = ["compress_space_res", "compress_time_res", "compress_all_res", "compress_all_res"]
    encoder = [["res_x", {"num_layers": encoder_layers[0]}]]
    for name, layers in zip(down, encoder_layers[1:]):
        encoder += [[name, {"multiplier": multiplier}], ["res_x", {"num_layers": layers}]]
    resnets = ["res_x", {"num_layers": decoder_layers, "inject_noise": False}]
    decoder = [resnets] + [["compress_all", {"residual": True, "multiplier": 2}], resnets] * 3
    # No spatial_padding_mode: it would set both halves, and this encoder pads with zeros, its decoder reflects.
    return {"_class_name": "CausalVideoAutoencoder", "dims": 3, "in_channels": 3, "out_channels": 3,
            "latent_channels": 128, "encoder_blocks": encoder, "decoder_blocks": decoder,
            "encoder_base_channels": 128, "decoder_base_channels": decoder_base, "scaling_factor": 1.0,
            "norm_layer": "pixel_norm", "patch_size": 4, "latent_log_var": "uniform", "use_quant_conv": False,
            "causal_decoder": False, "timestep_conditioning": False, "normalize_latent_channels": False}


def _vae_23(layers: list[int], multipliers: list[int], decoder_base: int) -> dict:
    """Both halves have the same numbers of layers. multipliers: of the encoder's steps."""
    encoder, decoder = [["res_x", {"num_layers": layers[0]}]], [["res_x", {"num_layers": layers[0]}]]
    steps = [("space", 2), ("time", 2), ("all", 1), ("all", 2)]
    down = ["space", "time", "all", "all"]
    for way, multiplier, (up, growth), count in zip(down, multipliers, steps, layers[1:]):
        encoder += [[f"compress_{way}_res", {"multiplier": multiplier}], ["res_x", {"num_layers": count}]]
        decoder += [[f"compress_{up}", {"multiplier": growth}], ["res_x", {"num_layers": count}]]
    return {**_vae(layers, 1, 1, decoder_base), "encoder_blocks": encoder, "decoder_blocks": decoder,
            "spatial_padding_mode": "zeros"}


def _audio_vae(ch_mult: list[int], num_res_blocks: int) -> dict:
    ddconfig = {"double_z": True, "mel_bins": 64, "z_channels": 8, "resolution": 256, "downsample_time": False,
                "in_channels": 2, "out_ch": 2, "ch": 128, "ch_mult": ch_mult, "num_res_blocks": num_res_blocks,
                "attn_resolutions": [], "dropout": 0.0, "mid_block_add_attention": False, "norm_type": "pixel",
                "causality_axis": "height"}
    return {"model": {"params": {"ddconfig": ddconfig, "sampling_rate": 16000}},
            "preprocessing": {"audio": {"sampling_rate": 16000}, "mel": {"n_mel_channels": 64},
                              "stft": {"filter_length": 1024, "hop_length": 160, "win_length": 1024}}}


def _vocoder(channels: int, kernel_sizes: list[int]) -> dict:
    return {"upsample_initial_channel": channels, "resblock": "1", "upsample_rates": [6, 5, 2, 2, 2],
            "upsample_kernel_sizes": [16, 15, 8, 4, 4], "resblock_kernel_sizes": kernel_sizes,
            "resblock_dilation_sizes": [[1, 3, 5]] * len(kernel_sizes), "stereo": True}


def _vocoder_23(channels: int, bwe_channels: int, kernel_sizes: list[int]) -> dict:
    both = {"resblock": "AMP1", "resblock_kernel_sizes": kernel_sizes, "stereo": True, "use_tanh_at_final": False,
            "resblock_dilation_sizes": [[1, 3, 5]] * len(kernel_sizes), "activation": "snakebeta",
            "use_bias_at_final": False}
    return {
        "vocoder": {**both, "upsample_initial_channel": channels, "upsample_rates": [5, 2, 2, 2, 2, 2],
                    "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4]},
        "bwe": {**both, "upsample_initial_channel": bwe_channels, "upsample_rates": [6, 5, 2, 2, 2],
                "upsample_kernel_sizes": [12, 11, 4, 4, 4], "apply_final_activation": False,
                "input_sampling_rate": 16000, "output_sampling_rate": 48000, "hop_length": 80, "n_fft": 512,
                "win_size": 512, "num_mels": 64}}


_SCHEDULER = {"_class_name": "RectifiedFlowScheduler", "num_train_timesteps": 1000, "shifting": None,
              "base_resolution": None}


def published_config(version: str = "2.0") -> dict:
    """The `config` metadata of ltx-2-19b-*.safetensors or ltx-2.3-22b-*.safetensors as best known.

    In it are transformer, vae, audio_vae, vocoder and scheduler. 2.0's transformer and all of 2.3's are third parties'
    copies of the header; 2.0's others say what ComfyUI and diffusers build.
    """
    if version == "2.3":
        return copy.deepcopy({
            "transformer": _TRANSFORMER_23, "vae": _vae_23([4, 6, 4, 2, 2], [2, 2, 2, 1], 128),
            "audio_vae": _audio_vae([1, 2, 4], 2), "vocoder": _vocoder_23(1536, 512, [3, 7, 11]),
            "scheduler": {**_SCHEDULER, "sampler": "LinearQuadratic"}})
    return copy.deepcopy({
        "transformer": _TRANSFORMER, "vae": _vae([4, 6, 6, 2, 2], 2, 5, 128), "audio_vae": _audio_vae([1, 2, 4], 2),
        "vocoder": _vocoder(1024, [3, 7, 11]), "scheduler": _SCHEDULER})


def tiny_config(version: str = "2.0") -> dict:
    """published_config() with every size that may shrink made small; the latents keep their real layout."""
    config = published_config(version)
    # caption_channels differs from the sum of the cross attention widths, by which ComfyUI tells LTX-2.3.
    config["transformer"] |= {
        "num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 32, "cross_attention_dim": 64,
        "audio_num_attention_heads": 2, "audio_attention_head_dim": 16, "audio_cross_attention_dim": 32,
        "caption_channels": 32, "connector_attention_head_dim": 16, "connector_num_attention_heads": 2}
    config["audio_vae"] = _audio_vae([1, 1, 1], 1)
    if version == "2.3":
        config["transformer"] |= {
            "connector_num_layers": 2, "connector_attention_head_dim": 32, "audio_connector_num_attention_heads": 2,
            "audio_connector_attention_head_dim": 16}
        config["vae"] = _vae_23([1] * 5, [1] * 4, 4)
        config["vocoder"] = _vocoder_23(128, 64, [3])
        return config
    config["vae"] = _vae([1] * 5, 1, 1, 4)
    config["vocoder"] = _vocoder(32, [3])
    return config


# What diffusers builds of the tiny file: each component's config.json, with the hub's own values where they say
# something else than the class's default.
DIFFUSERS = {
    "transformer": {
        "_class_name": "LTX2VideoTransformer3DModel", "num_layers": 4, "in_channels": 128, "out_channels": 128,
        "num_attention_heads": 2, "attention_head_dim": 32, "cross_attention_dim": 64,
        "audio_in_channels": 128, "audio_out_channels": 128, "audio_num_attention_heads": 2,
        "audio_attention_head_dim": 16, "audio_cross_attention_dim": 32, "caption_channels": 32,
        "rope_type": "split", "rope_double_precision": True, "rope_theta": 10000.0, "causal_offset": 1,
        "pos_embed_max_pos": 20, "audio_pos_embed_max_pos": 20, "base_height": 2048, "base_width": 2048,
        "vae_scale_factors": [8, 32, 32], "timestep_scale_multiplier": 1000,
        "cross_attn_timestep_scale_multiplier": 1000},
    "vae": {
        "_class_name": "AutoencoderKLLTX2Video", "latent_channels": 128, "block_out_channels": [128] * 4,
        "decoder_block_out_channels": [8, 16, 32], "layers_per_block": [1] * 5, "decoder_layers_per_block": [1] * 4,
        "encoder_causal": True, "decoder_causal": False, "encoder_spatial_padding_mode": "zeros",
        "decoder_spatial_padding_mode": "reflect", "timestep_conditioning": False, "patch_size": 4,
        "spatial_compression_ratio": 32, "temporal_compression_ratio": 8},
    "audio_vae": {
        "_class_name": "AutoencoderKLLTX2Audio", "base_channels": 128, "ch_mult": [1, 1, 1], "num_res_blocks": 1,
        "latent_channels": 8, "mel_bins": 64, "sample_rate": 16000, "mel_hop_length": 160},
    "connectors": {
        "_class_name": "LTX2TextConnectors", "caption_channels": 32, "text_proj_in_factor": 49,
        "video_connector_num_attention_heads": 2, "video_connector_attention_head_dim": 16,
        "video_connector_num_layers": 2, "video_connector_num_learnable_registers": 128,
        "audio_connector_num_attention_heads": 2, "audio_connector_attention_head_dim": 16,
        "audio_connector_num_layers": 2, "audio_connector_num_learnable_registers": 128,
        "connector_rope_base_seq_len": 4096, "rope_theta": 10000.0, "rope_double_precision": True,
        "rope_type": "split", "causal_temporal_positioning": False},
    "vocoder": {
        "_class_name": "LTX2Vocoder", "in_channels": 128, "hidden_channels": 32, "out_channels": 2,
        "upsample_kernel_sizes": [16, 15, 8, 4, 4], "upsample_factors": [6, 5, 2, 2, 2], "resnet_kernel_sizes": [3],
        "resnet_dilations": [[1, 3, 5]], "output_sampling_rate": 24000},
}
_23 = {
    "transformer": {"gated_attn": True, "audio_gated_attn": True, "cross_attn_mod": True, "audio_cross_attn_mod": True,
                    "use_prompt_embeddings": False, "perturbed_attn": True},
    "vae": {"decoder_block_out_channels": [8, 16, 16, 32], "decoder_layers_per_block": [1] * 5,
            "upsample_type": ["spatiotemporal", "spatiotemporal", "temporal", "spatial"],
            "upsample_residual": [False] * 4, "upsample_factor": [2, 2, 1, 2],
            "decoder_spatio_temporal_scaling": [True] * 4, "decoder_inject_noise": [False] * 5,
            "decoder_spatial_padding_mode": "zeros"},
    "connectors": {"video_connector_attention_head_dim": 32, "per_modality_projections": True, "video_hidden_dim": 64,
                   "audio_hidden_dim": 32, "proj_bias": True, "video_gated_attn": True, "audio_gated_attn": True},
}
# "clamp" is Lightricks' and ComfyUI's; diffusers' converter leaves the first wave as it is.
_VOCODER_23 = {
    "_class_name": "LTX2VocoderWithBWE", "hidden_channels": 128, "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
    "upsample_factors": [5, 2, 2, 2, 2, 2], "resnet_kernel_sizes": [3], "resnet_dilations": [[1, 3, 5]],
    "act_fn": "snakebeta", "antialias": True, "final_act_fn": "clamp", "final_bias": False, "bwe_hidden_channels": 64,
    "bwe_upsample_kernel_sizes": [12, 11, 4, 4, 4], "bwe_upsample_factors": [6, 5, 2, 2, 2],
    "bwe_resnet_kernel_sizes": [3], "bwe_resnet_dilations": [[1, 3, 5]], "bwe_act_fn": "snakebeta",
    "bwe_antialias": True, "bwe_final_act_fn": None, "bwe_final_bias": False, "filter_length": 512, "hop_length": 80,
    "window_length": 512, "num_mel_channels": 64, "input_sampling_rate": 16000, "output_sampling_rate": 48000}


def diffusers_config(version: str = "2.0") -> dict[str, dict]:
    """Each component's config.json: DIFFUSERS, or the same of LTX-2.3."""
    if version == "2.0":
        return DIFFUSERS
    return {**{name: {**it, **_23.get(name, {})} for name, it in DIFFUSERS.items()}, "vocoder": _VOCODER_23}


# The dev model's schedule. Distilled runs replace its sigmas.
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0,
             "use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024,
             "max_image_seq_len": 4096, "shift_terminal": 0.1, "time_shift_type": "exponential"}

INDEX = {
    "_class_name": "LTX2Pipeline", "_diffusers_version": "0.37.0",
    "audio_vae": ["diffusers", "AutoencoderKLLTX2Audio"], "connectors": ["ltx2", "LTX2TextConnectors"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Gemma3ForConditionalGeneration"],
    "tokenizer": ["transformers", "GemmaTokenizerFast"],
    "transformer": ["diffusers", "LTX2VideoTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLLTX2Video"],
    "vocoder": ["ltx2", "LTX2Vocoder"]}

UPSCALER = {"_class_name": "LatentUpsampler", "in_channels": 128, "mid_channels": 32, "num_blocks_per_stage": 1,
            "dims": 3, "spatial_upsample": True, "temporal_upsample": False, "spatial_scale": 2.0,
            "rational_resampler": True}
UPSCALER_23 = {**UPSCALER, "rational_resampler": False}
