"""SVD-XT as published, in one file or in a folder, and as diffusers' modules on the host's layers.

The renames are those of scripts/convert_svd_to_diffusers.py in the diffusers repo for the U-Net, and of ComfyUI's
comfy/clip_vision.py for the image encoder. What a file does not tell is the model's own: scripts/sampling/configs/
svd_xt.yaml in Stability-AI/generative-models.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from .. import folder
from ..errors import WrongModelFile
from ..host import layers
from ..host.memory import Part
from ..weights import check, looks_like, shapes, split

WANTED = "SVD-XT"
LEVELS = 4
BLOCKS = 3  # of a level of the U-Net: two and the one that changes the size, or three on the way up
# stabilityai/stable-video-diffusion-img2vid-xt, scheduler/scheduler_config.json.
SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "prediction_type": "v_prediction", "sigma_min": 0.002, "sigma_max": 700.0, "steps_offset": 1,
    "timestep_spacing": "leading", "timestep_type": "continuous", "use_karras_sigmas": True,
}  # fmt: skip

RESNET = {
    r"\bin_layers\.0\.": "norm1.", r"\bin_layers\.2\.": "conv1.", r"\bout_layers\.0\.": "norm2.",
    r"\bout_layers\.3\.": "conv2.", r"\bemb_layers\.1\.": "time_emb_proj.", r"\bskip_connection\.": "conv_shortcut.",
}  # fmt: skip


def unet_block(it: re.Match) -> str:
    """The file counts the blocks of all levels in one row; diffusers nests them."""
    half, number, part, rest = it[1], int(it[2]), int(it[3]), it[4]
    level, block = divmod(number - 1 if half == "input" else number, BLOCKS)
    place = f"{'down' if half == 'input' else 'up'}_blocks.{level}."
    if rest.startswith("op."):
        return f"{place}downsamplers.0.conv.{rest.removeprefix('op.')}"
    if rest.startswith("conv."):
        return f"{place}upsamplers.0.{rest}"
    return place + (unet_resnet if part == 0 else unet_attention)(block, rest)


def unet_middle(it: re.Match) -> str:
    number, rest = int(it[1]), it[2]
    return "mid_block." + (unet_attention(0, rest) if number == 1 else unet_resnet(number // 2, rest))


def unet_resnet(block: int, rest: str) -> str:
    if rest.startswith("time_stack."):
        rest = rest.replace("time_stack", "temporal_res_block")
    elif not rest.startswith("time_mixer."):
        rest = f"spatial_res_block.{rest}"
    return f"resnets.{block}.{rest}"


def unet_attention(block: int, rest: str) -> str:
    return f"attentions.{block}.{rest.replace('time_stack', 'temporal_transformer_blocks')}"


def decoder_block(it: re.Match) -> str:
    """In the decoder each resnet has a spatial and a temporal half, and what mixes them."""
    place, rest = it[1], it[2]
    if rest == "mix_factor":
        return f"{place}time_mixer.mix_factor"
    if rest.startswith("time_stack."):
        return place + rest.replace("time_stack", "temporal_res_block")
    return f"{place}spatial_res_block.{rest}"


# Each component: how its names begin in the file, and what becomes of the rest. Other names are of no use: the half of
# CLIP that reads text, the decoder beside the encoder of the conditioner, and an encoder beside the video's decoder.
COMPONENTS = {
    "unet": (
        (r"^model\.diffusion_model\.",),
        {
            r"^time_embed\.0\.": "time_embedding.linear_1.",
            r"^time_embed\.2\.": "time_embedding.linear_2.",
            r"^label_emb\.0\.0\.": "add_embedding.linear_1.",
            r"^label_emb\.0\.2\.": "add_embedding.linear_2.",
            r"^input_blocks\.0\.0\.": "conv_in.",
            r"^out\.0\.": "conv_norm_out.",
            r"^out\.2\.": "conv_out.",
            r"^(input|output)_blocks\.(\d+)\.(\d)\.(.*)": unet_block,
            r"^middle_block\.(\d)\.(.*)": unet_middle,
            r"\btime_pos_embed\.0\.": "time_pos_embed.linear_1.",
            r"\btime_pos_embed\.2\.": "time_pos_embed.linear_2.",
            **RESNET,
        },
    ),
    "vae": (
        (r"^first_stage_model\.(?=decoder\.)", r"^conditioner\.embedders\.3\.encoder\.(?=encoder\.|quant_conv\.)"),
        {
            r"\bnorm_out\.": "conv_norm_out.",
            r"\bconv_out\.time_mix_conv\.": "time_conv_out.",
            r"\bdown\.(\d)\.downsample\.": r"down_blocks.\1.downsamplers.0.",
            r"\bup\.(\d)\.upsample\.": lambda it: f"up_blocks.{LEVELS - 1 - int(it[1])}.upsamplers.0.",
            r"\bdown\.(\d)\.block\.(\d)\.": r"down_blocks.\1.resnets.\2.",
            r"\bup\.(\d)\.block\.(\d)\.": lambda it: f"up_blocks.{LEVELS - 1 - int(it[1])}.resnets.{it[2]}.",
            r"\bmid\.block_(\d)\.": lambda it: f"mid_block.resnets.{int(it[1]) - 1}.",
            r"\bmid\.attn_1\.norm\.": "mid_block.attentions.0.group_norm.",
            r"\bmid\.attn_1\.([qkv])\.": r"mid_block.attentions.0.to_\1.",
            r"\bmid\.attn_1\.proj_out\.": "mid_block.attentions.0.to_out.0.",
            r"^(decoder\..*\bresnets\.\d\.)(.*)": decoder_block,
            r"\bnin_shortcut\.": "conv_shortcut.",
            **RESNET,
        },
    ),
    "image_encoder": (
        (r"^conditioner\.embedders\.0\.open_clip\.model\.visual\.",),
        {
            r"^class_embedding$": "vision_model.embeddings.class_embedding",
            r"^conv1\.": "vision_model.embeddings.patch_embedding.",
            r"^positional_embedding$": "vision_model.embeddings.position_embedding.weight",
            r"^ln_pre\.": "vision_model.pre_layrnorm.",
            r"^ln_post\.": "vision_model.post_layernorm.",
            r"^proj$": "visual_projection.weight",
            r"^transformer\.resblocks\.": "vision_model.encoder.layers.",
            r"\bln_([12])\.": r"layer_norm\1.",
            r"\bmlp\.c_fc\.": "mlp.fc1.",
            r"\bmlp\.c_proj\.": "mlp.fc2.",
            r"\battn\.in_proj_": "self_attn.qkv_proj.",
            r"\battn\.out_proj\.": "self_attn.out_proj.",
        },
    ),
}
PUBLISHED_ENCODER = "conditioner.embedders.3."
TEMPORAL = "first_stage_model.decoder.mid.block_1.mix_factor"
# What diffusers and transformers look at, among stored weights, to learn in which dtype to go on.
ASKED = {
    "image_encoder": "vision_model.embeddings.patch_embedding.weight",
    "vae": "decoder.up_blocks.0.resnets.0.spatial_res_block.norm1.weight",
}


def components(names: Mapping) -> dict[str, tuple]:
    """COMPONENTS for a file with these names: what ComfyUI has saved holds only the encoder beside the decoder."""
    if any(name.startswith(PUBLISHED_ENCODER) for name in names):
        return COMPONENTS
    return {**COMPONENTS, "vae": ((r"^first_stage_model\.",), COMPONENTS["vae"][1])}


def converted(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of each component by the names and in the shapes of its module: views of the file's but for one."""
    names = split(tensors, components(tensors))
    parts = {component: {new: tensors[old] for new, old in found.items()} for component, found in names.items()}
    vae, clip = parts["vae"], parts["image_encoder"]
    for name, value in vae.items():
        # Convolutions of one pixel there, linear layers here.
        if "attentions" in name and value.ndim == 4:
            vae[name] = value.flatten(1)
    if "quant_conv.weight" not in vae and "encoder.conv_out.bias" in vae:
        channels = vae["encoder.conv_out.bias"]
        # It is part of the last convolution where the file has none of its own.
        vae["quant_conv.weight"] = torch.eye(len(channels), dtype=channels.dtype)[..., None, None]
        vae["quant_conv.bias"] = torch.zeros_like(channels)
    for name in [it for it in clip if "qkv_proj" in it]:
        for kind, value in zip("qkv", clip.pop(name).chunk(3), strict=True):
            clip[name.replace("qkv_proj", f"{kind}_proj")] = value
    if "conditioner.embedders.0.open_clip.model.visual.proj" in tensors:
        # A copy of 5 MB: a matrix that lies the other way round rounds otherwise.
        clip["visual_projection.weight"] = clip["visual_projection.weight"].T.contiguous()
    return parts


def classes() -> dict[str, type]:
    """The class of each component; imported when needed, since it takes seconds."""
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionModelWithProjection

    return {
        "unet": UNetSpatioTemporalConditionModel,
        "vae": AutoencoderKLTemporalDecoder,
        "image_encoder": CLIPVisionModelWithProjection,
    }


def count(names: Mapping, pattern: str) -> int:
    """One more than the highest number that `pattern` finds in the names."""
    return 1 + max(int(it[1]) for name in names if (it := re.match(pattern, name)))


def unet_arguments(given: Mapping[str, tuple]) -> dict:
    """The U-Net's arguments from its shapes, by diffusers' names. A head has 64 values."""
    channels = [given[f"down_blocks.{level}.resnets.0.spatial_res_block.conv2.weight"][0] for level in range(LEVELS)]
    return {
        "in_channels": given["conv_in.weight"][1],
        "out_channels": given["conv_out.weight"][0],
        "block_out_channels": tuple(channels),
        "num_attention_heads": tuple(width // 64 for width in channels),
        "cross_attention_dim": given["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"][1],
        "projection_class_embeddings_input_dim": given["add_embedding.linear_1.weight"][1],
    }


def vae_arguments(given: Mapping[str, tuple]) -> dict:
    channels = [given[f"encoder.down_blocks.{level}.resnets.0.conv2.weight"][0] for level in range(LEVELS)]
    return {
        "block_out_channels": tuple(channels),
        "down_block_types": ("DownEncoderBlock2D",) * LEVELS,
        "layers_per_block": count(given, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "latent_channels": given["decoder.conv_in.weight"][1],
        "scaling_factor": 0.18215,
    }


def clip_config(given: Mapping[str, tuple]):
    """The image encoder's CLIPVisionConfig, that of laion/CLIP-ViT-H-14-laion2B-s32B-b79K. A head has 80 values."""
    from transformers import CLIPVisionConfig

    width, _, patch, _ = given["vision_model.embeddings.patch_embedding.weight"]
    places, _ = given["vision_model.embeddings.position_embedding.weight"]
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=given["vision_model.encoder.layers.0.mlp.fc1.weight"][0],
        num_hidden_layers=count(given, r"vision_model\.encoder\.layers\.(\d+)\."),
        num_attention_heads=width // 80,
        patch_size=patch,
        image_size=round((places - 1) ** 0.5) * patch,
        projection_dim=given["visual_projection.weight"][0],
        hidden_act="gelu",
    )


def skeletons(given: Mapping[str, Mapping[str, tuple]]) -> dict[str, torch.nn.Module]:
    """The modules for these shapes, on the meta device. Raises KeyError or ValueError when they make none."""
    unet, vae, clip = classes().values()
    with torch.device("meta"):
        return {
            "unet": unet(**unet_arguments(given["unet"])),
            "vae": vae(**vae_arguments(given["vae"])),
            "image_encoder": clip(clip_config(given["image_encoder"])),
        }


def check_parts(file: str, modules: Mapping, parts: Mapping, found: str):
    """Raise WrongModelFile unless these tensors are what an SVD's modules need. found: what the file looks like."""
    for name, module in modules.items():
        check(f"{file} ({name})", WANTED, shapes(module.state_dict()), shapes(parts[name]), found)
    kinds = {it.dtype for part in parts.values() for it in part.values()}
    if not kinds <= {torch.float16, torch.bfloat16, torch.float32}:
        reason = f"its weights are of {', '.join(sorted(str(it).removeprefix('torch.') for it in kinds))}"
        raise WrongModelFile(file=file, wanted=WANTED, reason=reason, found=found)
    unet = modules["unet"]
    told = unet.add_embedding.linear_1.in_features // unet.config.addition_time_embed_dim
    if (unet.config.in_channels, told) != (8, 3):
        reason = f"its U-Net takes {unet.config.in_channels} channels and {told} numbers, instead of 8 and 3"
        raise WrongModelFile(file=file, wanted=WANTED, reason=reason, found="another member of its family")


def open_file(path: str) -> tuple[dict[str, torch.nn.Module], dict[str, dict[str, torch.Tensor]]]:
    """Skeletons of a single file's components, and their tensors. Raises ModelFileBroken or WrongModelFile."""
    tensors, _ = layers.read(path)
    file, kind = Path(path).name, looks_like(tensors)
    if kind != "Stable Video Diffusion":
        raise WrongModelFile(file=file, wanted=WANTED, reason="its keys are another model's", found=kind)
    if TEMPORAL not in tensors and any(name.startswith("first_stage_model.decoder.") for name in tensors):
        reason = "its decoder makes single pictures, which flicker"
        raise WrongModelFile(file=file, wanted=WANTED, reason=reason, found="svd_xt_image_decoder.safetensors")
    parts = converted(tensors)
    if missing := [name for name, part in parts.items() if not part]:
        reason = f"it has no {' and no '.join(missing)}"
        raise WrongModelFile(file=file, wanted=WANTED, reason=reason, found=f"a part of {kind}")
    try:
        modules = skeletons({name: shapes(part) for name, part in parts.items()})
    except (LookupError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, LookupError) else str(error)
        raise WrongModelFile(file=file, wanted=WANTED, reason=reason, found=kind) from error
    check_parts(file, modules, parts, kind)
    return modules, parts


def open_folder(path: str) -> tuple[dict[str, torch.nn.Module], dict[str, dict[str, torch.Tensor]]]:
    """The same of a folder as diffusers writes it. Raises the same."""
    modules, parts = folder.open_folder(path, WANTED, classes())
    check_parts(Path(path).name, modules, parts, folder.pipeline(path))
    return modules, parts


class SVD:
    """An open SVD-XT. Each component is a Part: unet, vae, image_encoder. path: its file or folder.

    dtype: what flows through U-Net, image encoder and the VAE's decoder. The encoder computes in float32, as diffusers
    and generative-models have it. made: what was sampled last, and its latents.
    """

    @torch.inference_mode()
    def __init__(self, path: str):
        self.path, self.made = path, None
        modules, tensors = (open_folder if Path(path).is_dir() else open_file)(path)
        # The published file is float32, and meant to run in float16.
        self.dtype = layers.compute_dtype(torch.float16, torch.float16)
        for name, key in ASKED.items():
            tensors[name][key] = tensors[name][key].to(self.dtype)
        flows = {"unet": self.dtype, "vae": torch.float32, "image_encoder": self.dtype}
        for name, module in modules.items():
            places = {key: value for key, value in module.named_buffers() if key.endswith("position_ids")}
            buffers = {key: torch.arange(it.shape[1])[None] for key, it in places.items()}
            setattr(self, name, Part(layers.fill(module, tensors[name], flows[name], buffers=buffers), path))

    @property
    def parts(self) -> list[Part]:
        return [self.unet, self.vae, self.image_encoder]
