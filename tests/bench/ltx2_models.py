"""LTX-2 and Gemma in sizes where computing and reading count: published structure, random weights from a seed."""

import copy
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from tiny import gemma
from tiny.configs import published_config, tiny_config
from tiny.ltx2 import quantized_layers
from tiny.names import MODEL
from tiny.weights import fan_in

PROJECTION = "text_embedding_projection.aggregate_embed.weight"
TEXT_STATES = 49  # Gemma's embeddings and each layer's output
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3"}


def config(heads: int, layers: int, text: int, version: str = "2.0") -> dict:
    """The published file's, with so many heads of its 128 and 64 values in each of so many layers; small decoders.

    text: values per token of one state of the text encoder.
    """
    found = copy.deepcopy({**tiny_config(version), "transformer": published_config(version)["transformer"]})
    found["transformer"] |= {
        "num_layers": layers, "num_attention_heads": heads, "audio_num_attention_heads": heads,
        "cross_attention_dim": heads * 128, "audio_cross_attention_dim": heads * 64, "caption_channels": text,
        "connector_num_attention_heads": heads, "connector_attention_head_dim": text // heads,
    }  # fmt: skip
    if version == "2.3":
        found["transformer"] |= {"connector_attention_head_dim": 128, "audio_connector_num_attention_heads": heads}
    return found


def core_transformer(described: Mapping, device: str = "cpu") -> torch.nn.Module:
    """ComfyUI's own model; what its weights are is left to chance."""
    import comfy.ops
    from comfy.ldm.lightricks.av_model import LTXAVModel

    return LTXAVModel(
        dtype=torch.float32, device=device, operations=comfy.ops.disable_weight_init, **described["transformer"]
    )


def shapes(described: Mapping) -> dict[str, torch.Size]:
    """The names and shapes of a whole single file, from ComfyUI's own classes."""
    from comfy.ldm.lightricks.vae.causal_audio_autoencoder import CausalAudioAutoencoder
    from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE
    from comfy.ldm.lightricks.vocoders.vocoder import Vocoder

    with torch.device("meta"):
        modules = {
            MODEL: core_transformer(described, "meta"), "vae.": VideoVAE(config=described["vae"]),
            "audio_vae.": CausalAudioAutoencoder(described["audio_vae"]), "vocoder.": Vocoder(described["vocoder"]),
        }  # fmt: skip
    found = {prefix + name: value.shape for prefix, module in modules.items()
             for name, value in module.state_dict().items()}
    text = described["transformer"]["caption_channels"]
    return found | {PROJECTION: torch.Size((text, text * TEXT_STATES))}


def value(name: str, shape: torch.Size, dice: torch.Generator) -> torch.Tensor:
    """float32, such that activations stay near 1."""
    drawn = torch.randn(shape, generator=dice)
    if "std-of-means" in name:
        return 0.75 + 0.25 * drawn.tanh()
    if name.endswith("_norm.weight"):
        return 1 + 0.1 * drawn
    if len(shape) > 1:
        return drawn * fan_in(shape) ** -0.5
    return drawn * 0.02


def write_checkpoint(path: Path, described: Mapping, weights: str):
    """The single file as published. weights: fp32, or fp8, which is BF16 where it is not FP8."""
    dice = torch.Generator().manual_seed(0)
    sizes = shapes(described)
    meta = {name: torch.empty(shape, device="meta") for name, shape in sizes.items()}
    layers = quantized_layers(meta, described) if weights == "fp8" else []
    kinds = {name: torch.bfloat16 if weights == "fp8" and "scale_shift_table" not in name else torch.float32
             for name in sizes}
    for layer in layers:
        kinds[layer + ".weight"] = torch.float8_e4m3fn
        for scale in (".weight_scale", ".input_scale"):
            kinds[layer + scale], sizes[layer + scale] = torch.float32, torch.Size(())

    def tensors() -> Iterator[torch.Tensor]:
        for name, kind in kinds.items():
            if name.endswith("_scale"):
                yield torch.tensor(1 / 16)
            elif kind == torch.float8_e4m3fn:
                # 16 times what the layer multiplies with, which is well inside E4M3.
                yield (value(name, sizes[name], dice) * 16).to(kind)
            else:
                yield value(name, sizes[name], dice).to(kind)

    metadata = {"config": json.dumps(described), "model_version": "2.0"}
    if layers:
        formats = {"format_version": "1.0", "layers": {layer: {"format": "float8_e4m3fn"} for layer in layers}}
        metadata["_quantization_metadata"] = json.dumps(formats)
    save(path, {name: (kind, sizes[name]) for name, kind in kinds.items()}, tensors(), metadata)


def save(path: Path, facts: Mapping[str, tuple], tensors: Iterator[torch.Tensor], metadata: Mapping[str, str]):
    """A .safetensors file, one tensor in memory at a time. facts: name -> dtype and shape, in the tensors' order."""
    header, start = {"__metadata__": metadata}, 0
    for name, (kind, shape) in facts.items():
        end = start + math.prod(shape) * kind.itemsize
        header[name] = {"dtype": NAMES[kind], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            file.write(tensor.reshape(-1).view(torch.uint8).numpy())


def write_gemma(folder: Path):
    """A Hugging Face folder of Gemma 3 with a quarter of the 12B's widths and layers, and the tiny tokenizer."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    text = {
        "hidden_size": 960, "num_hidden_layers": 12, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 256, "query_pre_attn_scalar": 256, "intermediate_size": 3840, "vocab_size": gemma.VOCABULARY,
        "sliding_window": 1024,
    }  # fmt: skip
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
              "image_size": 28, "patch_size": 14}
    made = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    Gemma3ForConditionalGeneration(made).save_pretrained(folder)
    gemma.write_tokenizer(folder)
