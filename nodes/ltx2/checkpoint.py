"""LTX-2 files as published, and as diffusers' modules on the host's layers.

The renames are those of scripts/convert_ltx2_to_diffusers.py in the diffusers repo: nothing but names changes.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from .. import folder
from ..errors import WrongModelFile
from ..host import layers, lora, memory
from ..host.memory import Part
from ..weights import check, looks_like, shapes, split, unpacked
from . import config as describe

WANTED = "an LTX-2 checkpoint"
NORMS = {r"\bq_norm\b": "norm_q", r"\bk_norm\b": "norm_k"}
# The transformer's modules outside of its blocks. Inside, no layer has another name.
OUTER = {
    "patchify_proj": "proj_in",
    "audio_patchify_proj": "audio_proj_in",
    "adaln_single": "time_embed",
    "audio_adaln_single": "audio_time_embed",
    "av_ca_video_scale_shift_adaln_single": "av_cross_attn_video_scale_shift",
    "av_ca_audio_scale_shift_adaln_single": "av_cross_attn_audio_scale_shift",
    "av_ca_a2v_gate_adaln_single": "av_cross_attn_video_a2v_gate",
    "av_ca_v2a_gate_adaln_single": "av_cross_attn_audio_v2a_gate",
    "prompt_adaln_single": "prompt_adaln",
    "audio_prompt_adaln_single": "audio_prompt_adaln",
}
# The connectors' first layers: one for both modalities in LTX-2, one for each in LTX-2.3.
TEXT_LAYERS = {
    "text_proj_in": "text_embedding_projection.aggregate_embed",
    "video_text_proj_in": "text_embedding_projection.video_aggregate_embed",
    "audio_text_proj_in": "text_embedding_projection.audio_aggregate_embed",
}
STATISTICS = {
    r"^per_channel_statistics\.mean-of-means$": "latents_mean",
    r"^per_channel_statistics\.std-of-means$": "latents_std",
}


def down_block(number: int) -> str:
    """The file counts the encoder's residual and downsampling blocks in one row; diffusers nests the latter."""
    if number == 8:
        return "encoder.mid_block."
    return f"encoder.down_blocks.{number // 2}." + ("downsamplers.0." if number % 2 else "")


def up_block(number: int) -> str:
    if number == 0:
        return "decoder.mid_block."
    return f"decoder.up_blocks.{(number - 1) // 2}." + ("upsamplers.0." if number % 2 else "")


# Each component: the start of its names in the file, and what its names become. Not in diffusers: statistics that only
# the encoder's training used.
COMPONENTS = {
    "connectors": (
        (r"^model\.diffusion_model\.(?=(video|audio)_embeddings_connector\.)", r"^(?=text_embedding_projection\.)"),
        {
            r"^(video|audio)_embeddings_connector\.": r"\1_connector.",
            r"transformer_1d_blocks": "transformer_blocks",
            **{rf"^{re.escape(published)}\.": f"{ours}." for ours, published in TEXT_LAYERS.items()},
            **NORMS,
        },
    ),
    "transformer": (
        (r"^model\.diffusion_model\.",),
        {
            **{rf"^{published}\.": f"{ours}." for published, ours in OUTER.items()},
            r"scale_shift_table_a2v_ca_(video|audio)": r"\1_a2v_cross_attn_scale_shift_table",
            **NORMS,
        },
    ),
    "vae": (
        (r"^vae\.(?!per_channel_statistics\.(channel|mean-of-stds))",),
        {
            r"^encoder\.down_blocks\.(\d+)\.": lambda it: down_block(int(it[1])),
            r"^decoder\.up_blocks\.(\d+)\.": lambda it: up_block(int(it[1])),
            r"\bres_blocks\b": "resnets",
            **STATISTICS,
        },
    ),
    "audio_vae": ((r"^audio_vae\.(?!per_channel_statistics\.(channel|mean-of-stds))",), STATISTICS),
    "vocoder": (
        (r"^vocoder\.",),
        {
            r"\bups\.": "upsamplers.",
            r"\bresblocks\.": "resnets.",
            r"\bconv_pre\.": "conv_in.",
            r"\bconv_post\.": "conv_out.",
            r"\bact_post\.": "act_out.",
            r"\bdownsample\.lowpass\.": "downsample.",
        },
    ),
}
FORMATS = {torch.float8_e4m3fn: "float8_e4m3fn", torch.float8_e5m2: "float8_e5m2", torch.uint8: "nvfp4"}
SCALES = (".weight_scale", ".weight_scale_2", ".input_scale", layers.MARKER)


def classes(extends_band: bool) -> dict[str, type]:
    """diffusers' class of each component; imported when needed, since it takes seconds."""
    from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder, LTX2VocoderWithBWE

    return {
        "transformer": LTX2VideoTransformer3DModel,
        "connectors": LTX2TextConnectors,
        "vae": AutoencoderKLLTX2Video,
        "audio_vae": AutoencoderKLLTX2Audio,
        "vocoder": LTX2VocoderWithBWE if extends_band else LTX2Vocoder,
    }


def skeletons(config: Mapping, text_width: int) -> dict[str, torch.nn.Module]:
    """The components of a checkpoint on the meta device, by diffusers' names. config: as described()."""
    arguments = {
        "transformer": describe.transformer(config),
        "connectors": describe.connectors(config, text_width),
        "vae": describe.vae(config),
        "audio_vae": describe.audio_vae(config),
        "vocoder": describe.vocoder(config),
    }
    with torch.device("meta"):
        kinds = classes(describe.extends_band(config))
        return {name: kind(**arguments[name]) for name, kind in kinds.items()}


def check_component(file: str, module: torch.nn.Module, given: Mapping[str, tuple], found: str):
    """Raise WrongModelFile unless the shapes `given`, by diffusers' names, are the module's; scales come on top."""
    needed = shapes(module.state_dict())
    plain = {name: shape for name, shape in unpacked(given, needed).items() if not name.endswith(SCALES)}
    check(file, WANTED, needed, plain, found)


def is_marked(tensors: Mapping[str, torch.Tensor], name: str) -> bool:
    """Whether the file says of a quantized weight what its bytes are, and says it rightly."""
    marker = tensors.get(name.removesuffix(".weight") + layers.MARKER)
    try:
        form = json.loads(bytes(marker.tolist()))["format"]
    except (AttributeError, ValueError, LookupError, TypeError):
        return False
    return form == FORMATS[tensors[name].dtype]


def check_scales(file: str, tensors: Mapping[str, torch.Tensor]):
    """Raise WrongModelFile where quantized weights have no scale or no format: cast without them they are noise."""
    suffixes = {torch.float8_e4m3fn: ["_scale"], torch.float8_e5m2: ["_scale"], torch.uint8: ["_scale", "_scale_2"]}
    quantized = [name for name, it in tensors.items() if name.endswith(".weight") and it.dtype in suffixes]
    bare = [name for name in quantized if any(name + it not in tensors for it in suffixes[tensors[name].dtype])]
    lacking = "scale" if bare else "format that fits"
    if bare := bare or [name for name in quantized if not is_marked(tensors, name)]:
        kind = "FP4" if tensors[bare[0]].dtype == torch.uint8 else "FP8"
        reason = f"{len(bare)} {kind} weights have no {lacking}, {bare[0]} is one"
        raise WrongModelFile(file=file, wanted=WANTED, reason=reason, found="a file whose scales were lost")


def open_file(path: str) -> tuple[dict[str, torch.nn.Module], dict[str, dict[str, torch.Tensor]]]:
    """Skeletons of a single file's components, and their tensors by diffusers' names.

    Raises ModelFileBroken or WrongModelFile.
    """
    tensors, metadata = layers.read(path)
    file = Path(path).name
    kind = looks_like(tensors)
    if kind not in ("LTX-2", "LTX-2.3"):
        raise WrongModelFile(file=file, wanted=WANTED, reason="its keys are another model's", found=kind)
    check_scales(file, tensors)
    try:
        config = describe.described(metadata, kind)
        names = split(tensors, COMPONENTS)
        own = config["transformer"]["caption_proj_before_connector"]
        first = "video_text_proj_in.weight" if own else "text_proj_in.weight"
        width = tensors[names["connectors"][first]].shape[1]
        modules = skeletons(config, width)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        reason = f"its description does not make a model ({type(error).__name__}: {error})"
        raise WrongModelFile(file=file, wanted=WANTED, reason=reason, found=kind) from error
    parts = {name: {new: tensors[old] for new, old in names[name].items()} for name in modules}
    for name, module in modules.items():
        check_component(file, module, shapes(parts[name]), kind)
    return modules, parts


def open_folder(path: str) -> tuple[dict[str, torch.nn.Module], dict[str, dict[str, torch.Tensor]]]:
    """The same of a folder as diffusers writes it. Raises the same."""
    extends_band = folder.class_of(Path(path) / "vocoder") == "LTX2VocoderWithBWE"
    modules, parts = folder.open_folder(path, WANTED, classes(extends_band))
    for name, module in modules.items():
        check_component(f"{Path(path).name}/{name}", module, shapes(parts[name]), folder.pipeline(path))
    return modules, parts


# The layers that the published FP8 file quantizes in a block, and the blocks where it does.
FP8_LAYER = re.compile(r"(transformer_blocks\.(\d+)\..*(?:attn\w*\.to_\w+(?:\.0)?|ff\.net\.\d(?:\.proj)?))\.weight")
LAST_FP8_BLOCK = 42


def quantized(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The transformer's tensors with the layers in FP8 that LTX-2's published FP8 file has so: all but outer blocks'.

    LTX-2.3's has one or two blocks more, and it is not known which.
    """
    blocks = 1 + max(int(it[1]) for name in tensors if (it := re.match(r"transformer_blocks\.(\d+)\.", name)))
    inner = range(1, min(LAST_FP8_BLOCK + 1, blocks - 1))
    made = {}
    for name, value in tensors.items():
        it = FP8_LAYER.fullmatch(name)
        if it and int(it[2]) in inner and it[1] + layers.MARKER not in tensors:
            made |= {it[1] + suffix: tensor for suffix, tensor in layers.quantize(value).items()}
        else:
            made[name] = value
    return made


def published(name: str) -> str:
    """The published name of one of the transformer's layers."""
    first, dot, rest = name.partition(".")
    return next((it for it, ours in OUTER.items() if ours == first), first) + dot + rest


def resampler(vocoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The filter of a band-extending vocoder that no file holds, by its name in the module."""
    it = vocoder.resampler
    made = type(it)(ratio=it.ratio, window_type="hann", persistent=False)
    return {"resampler.filter": made.filter}


class LTX2:
    """An open checkpoint. Each component is a Part: transformer, connectors, vae, audio_vae, vocoder.

    path: its file or folder. weights: "auto" as in the file; "fp8" also quantizes a bf16 file on loading; "bf16"
    multiplies in bf16 where the GPU could in FP8. version: "2.0" or "2.3". text_width: values per token that it takes.
    """

    @torch.inference_mode()
    def __init__(self, path: str, weights: str = "auto"):
        self.path, self.loras, self.conditioning = path, [], None
        modules, tensors = (open_folder if Path(path).is_dir() else open_file)(path)
        self.distilled = "distilled" in Path(path).name.lower()
        if weights == "fp8":
            tensors["transformer"] = quantized(tensors["transformer"])
        self.dtype = layers.compute_dtype(tensors["transformer"]["proj_in.weight"].dtype)
        vocoder, buffers, dtype = modules["vocoder"], {}, {}
        if hasattr(vocoder, "bwe_generator"):
            # bfloat16 adds up to 40 to 90 % of error over its 108 convolutions (Lightricks, vocoder.py).
            dtype, buffers = {"vocoder": torch.float32}, {"vocoder": resampler(vocoder)}
        for name, module in modules.items():
            layers.fill(
                module, tensors[name], dtype.get(name, self.dtype), buffers=buffers.get(name, {}),
                full_precision=weights == "bf16",
            )  # fmt: skip
            setattr(self, name, Part(module, path))
        self.version = "2.3" if self.transformer.module.config.cross_attn_mod else "2.0"
        connectors = self.connectors.module
        self.text_layers = {it: published for it, published in TEXT_LAYERS.items() if hasattr(connectors, it)}
        self.text_width = getattr(connectors, next(iter(self.text_layers))).in_features

    @property
    def parts(self) -> list[Part]:
        return [it for it in vars(self).values() if isinstance(it, Part)]

    def use_loras(self, loras: tuple[tuple[str, float], ...]):
        """Have these LoRAs on, (file, strength) in their order, and no others. Raises what lora.apply raises."""
        key = [(path, strength, memory.identity(path)) for path, strength in loras]
        if key != self.loras:
            linears = [name for name, it in self.transformer.module.named_modules() if hasattr(it, "in_features")]
            names = {name: published(name) for name in linears}
            self.loras = None
            lora.apply([(self.transformer, names), (self.connectors, self.text_layers)], loras)
            self.loras = key
