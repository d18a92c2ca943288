"""The single file's key names in diffusers' spelling, written down from the published conversion, not from the pack.

A stand-in must be able to disagree with what it stands in for: nothing here imports from nodes/.
"""

import re

MODEL = "model.diffusion_model."
CONNECTORS = (MODEL + "video_embeddings_connector.", MODEL + "audio_embeddings_connector.",
              "text_embedding_projection.")

_TRANSFORMER = [(r"^patchify_proj\.", "proj_in."), (r"^audio_patchify_proj\.", "audio_proj_in."),
                (r"^adaln_single\.", "time_embed."), (r"^audio_adaln_single\.", "audio_time_embed."),
                (r"^av_ca_video_scale_shift_adaln_single\.", "av_cross_attn_video_scale_shift."),
                (r"^av_ca_audio_scale_shift_adaln_single\.", "av_cross_attn_audio_scale_shift."),
                (r"^av_ca_a2v_gate_adaln_single\.", "av_cross_attn_video_a2v_gate."),
                (r"^av_ca_v2a_gate_adaln_single\.", "av_cross_attn_audio_v2a_gate."),
                (r"^prompt_adaln_single\.", "prompt_adaln."), (r"^audio_prompt_adaln_single\.", "audio_prompt_adaln."),
                (r"\.scale_shift_table_a2v_ca_video$", ".video_a2v_cross_attn_scale_shift_table"),
                (r"\.scale_shift_table_a2v_ca_audio$", ".audio_a2v_cross_attn_scale_shift_table"),
                (r"\.q_norm\.", ".norm_q."), (r"\.k_norm\.", ".norm_k.")]
_CONNECTORS = [(r"^model\.diffusion_model\.(video|audio)_embeddings_connector\.", r"\1_connector."),
               (r"^text_embedding_projection\.aggregate_embed\.", "text_proj_in."),
               (r"^text_embedding_projection\.(video|audio)_aggregate_embed\.", r"\1_text_proj_in."),
               (r"\.transformer_1d_blocks\.", ".transformer_blocks."),
               (r"\.q_norm\.", ".norm_q."), (r"\.k_norm\.", ".norm_k.")]
_STATISTICS = [(r"^per_channel_statistics\.mean-of-means$", "latents_mean"),
               (r"^per_channel_statistics\.std-of-means$", "latents_std")]
_VAE = [*_STATISTICS, (r"\.(down|up)_blocks\.(\d+)\.", lambda match: _vae_block(match[1], int(match[2]))),
        (r"\.res_blocks\.", ".resnets.")]
# LTX-2.3 has two of them, vocoder and bwe_generator.
_VOCODER = [(r"^(\w+\.)?ups\.", r"\1upsamplers."), (r"^(\w+\.)?resblocks\.", r"\1resnets."),
            (r"^(\w+\.)?conv_pre\.", r"\1conv_in."), (r"^(\w+\.)?conv_post\.", r"\1conv_out."),
            (r"^(\w+\.)act_post\.", r"\1act_out."), (r"\.downsample\.lowpass\.", ".downsample.")]
_PARTS = {"vae.": ("vae", _VAE), "audio_vae.": ("audio_vae", _STATISTICS), "vocoder.": ("vocoder", _VOCODER),
          MODEL: ("transformer", _TRANSFORMER)}


def _vae_block(half: str, number: int) -> str:
    # The file counts resnets and resamplers in one row; diffusers hangs each resampler on a block of resnets.
    if (half, number) in (("down", 8), ("up", 0)):
        return ".mid_block."
    block, resnets = divmod(number, 2) if half == "down" else divmod(number - 1, 2)
    if half == "down":
        return f".down_blocks.{block}." + ("downsamplers.0." if resnets else "")
    return f".up_blocks.{block}." + ("" if resnets else "upsamplers.0.")


def _renamed(name: str, rules: list) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def to_diffusers(key: str) -> tuple[str, str] | None:
    """(component, name) of a single file's key in a diffusers folder; None for one that diffusers does not keep."""
    if key.startswith(CONNECTORS):
        return "connectors", _renamed(key, _CONNECTORS)
    prefix = next(prefix for prefix in _PARTS if key.startswith(prefix))
    component, rules = _PARTS[prefix]
    name = _renamed(key.removeprefix(prefix), rules)
    return None if name.startswith("per_channel_statistics.") else (component, name)
