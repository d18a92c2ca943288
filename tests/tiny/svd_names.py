"""The keys of svd_xt.safetensors in diffusers' spelling, written down from the published conversion, not the pack.

A stand-in must be able to disagree with what it stands in for: nothing here imports from nodes/.
"""

import re

import torch

MODEL = "model.diffusion_model."
FIRST_STAGE = "first_stage_model."
# The plain autoencoder with which the published model encodes its image: diffusers' encoder, not ComfyUI's.
CONDITIONER = "conditioner.embedders.3.encoder."
TEXT = "conditioner.embedders.0.open_clip.model."
VISUAL = TEXT + "visual."

_LAYERS = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
           "out_layers.3": "conv2", "skip_connection": "conv_shortcut", "nin_shortcut": "conv_shortcut"}
_UNET = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
         "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
         "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}
_MIDDLE = ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1")
_ATTENTION = [(r"^time_stack\.", "temporal_transformer_blocks."), (r"^time_pos_embed\.0\.", "time_pos_embed.linear_1."),
              (r"^time_pos_embed\.2\.", "time_pos_embed.linear_2.")]
_VAE_TOP = {"norm_out": "conv_norm_out", "conv_out.time_mix_conv": "time_conv_out"}
_VAE_MIDDLE = {"block_1": "mid_block.resnets.0", "block_2": "mid_block.resnets.1"}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_VISION = [(r"^class_embedding$", "embeddings.class_embedding"), (r"^conv1\.", "embeddings.patch_embedding."),
           (r"^positional_embedding$", "embeddings.position_embedding.weight"), (r"^ln_pre\.", "pre_layrnorm."),
           (r"^ln_post\.", "post_layernorm."), (r"^transformer\.resblocks\.", "encoder.layers."),
           (r"\.ln_(\d)\.", r".layer_norm\1."), (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
           (r"\.mlp\.c_fc\.", ".mlp.fc1."), (r"\.mlp\.c_proj\.", ".mlp.fc2.")]


def _renamed(name: str, rules: list) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _resnet(name: str) -> str:
    """The inside of a spatiotemporal resnet: its two halves and their mixer."""
    if name.endswith("mix_factor"):
        return "time_mixer.mix_factor"
    half = "temporal_res_block" if name.startswith("time_stack.") else "spatial_res_block"
    layer, kind = name.removeprefix("time_stack.").rsplit(".", 1)
    return f"{half}.{_LAYERS.get(layer, layer)}.{kind}"


def _unet(name: str) -> str:
    layer, kind = name.rsplit(".", 1)
    if layer in _UNET:
        return f"{_UNET[layer]}.{kind}"
    if name.startswith("middle_block."):
        _, part, rest = name.split(".", 2)
        place = _MIDDLE[int(part)]
    else:
        half, number, part, rest = name.split(".", 3)
        down = half == "input_blocks"
        # Two layers a level on the way down and three on the way up; input block 0 is conv_in.
        block, index = divmod(int(number) - down, 3)
        blocks = f"{'down' if down else 'up'}_blocks.{block}"
        if rest.startswith(("op.", "conv.")):
            return f"{blocks}.{'down' if down else 'up'}samplers.0.conv.{kind}"
        place = f"{blocks}.{'attentions' if part == '1' else 'resnets'}.{index}"
    return f"{place}.{_renamed(rest, _ATTENTION) if '.attentions.' in place else _resnet(rest)}"


def _vae(name: str) -> str:
    half, name = name.split(".", 1)
    layer, kind = name.rsplit(".", 1)
    resnet = _resnet if half == "decoder" else lambda rest: rest.replace("nin_shortcut", "conv_shortcut")
    if name.startswith("mid.attn_1."):
        place = "mid_block.attentions.0." + _VAE_ATTENTION[layer.removeprefix("mid.attn_1.")] + "." + kind
    elif name.startswith("mid."):
        _, block, rest = name.split(".", 2)
        place = f"{_VAE_MIDDLE[block]}.{resnet(rest)}"
    elif name.startswith(("down.", "up.")):
        way, level, part, rest = name.split(".", 3)
        # sgm counts the levels of both halves from the pixels, diffusers in the order of the work.
        blocks = f"{way}_blocks.{int(level) if way == 'down' else 3 - int(level)}"
        if part == "block":
            index, rest = rest.split(".", 1)
            place = f"{blocks}.resnets.{index}.{resnet(rest)}"
        else:
            place = f"{blocks}.{way}samplers.0.{rest}"
    else:
        place = f"{_VAE_TOP.get(layer, layer)}.{kind}"
    return f"{half}.{place}"


def _vision(name: str, value: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    if name == "proj":
        return [("visual_projection.weight", value.T)]
    if ".in_proj_" in name:
        layer, kind = _renamed(name, _VISION).split(".attn.in_proj_")
        return [(f"vision_model.{layer}.self_attn.{part}_proj.{kind}", third)
                for part, third in zip("qkv", value.chunk(3))]
    return [("vision_model." + _renamed(name, _VISION), value)]


def to_diffusers(key: str, value: torch.Tensor) -> list[tuple[str, str, torch.Tensor]]:
    """(component, name, tensor) of what a published key becomes in a diffusers folder; empty if it is not kept.

    component: unet, vae or image_encoder. An in_proj becomes three tensors; meta tensors will do.
    """
    if key.startswith(MODEL):
        return [("unet", _unet(key.removeprefix(MODEL)), value)]
    if key.startswith(VISUAL):
        return [("image_encoder", *pair) for pair in _vision(key.removeprefix(VISUAL), value)]
    if key.startswith(CONDITIONER + "quant_conv."):
        return [("vae", key.removeprefix(CONDITIONER), value)]
    if key.startswith((CONDITIONER + "encoder.", FIRST_STAGE + "decoder.")):
        name = _vae(key.removeprefix(CONDITIONER).removeprefix(FIRST_STAGE))
        # Attention's 1x1 convolutions are Linears in diffusers.
        linear = ".attentions." in name and value.ndim == 4
        return [("vae", name, value[:, :, 0, 0] if linear else value)]
    return []


def components(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The state dicts of diffusers' unet, vae and image_encoder from a published file's tensors."""
    parts = {"unet": {}, "vae": {}, "image_encoder": {}}
    for key, value in tensors.items():
        for component, name, part in to_diffusers(key, value):
            parts[component][name] = part
    return parts
