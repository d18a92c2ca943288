"""What a file of weights holds: whose are its names, does it fit the module, and if not, what does it look like?"""

import re
from collections.abc import Iterable, Mapping

from .errors import WrongModelFile

NAMED = 4  # so many keys a message names of each kind

# By a piece of a key that only this kind of file has; the first that is found counts.
KINDS = (
    ("a LoRA", (".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.")),
    ("LTX-2.5", ("keyframes_abs_pos_embedding",)),
    ("LTX-2.3", ("prompt_adaln_single.",)),
    ("LTX-2", ("audio_patchify_proj.", "audio_adaln_single.", "audio_time_embed.")),
    ("LTX-Video 0.9", ("patchify_proj.",)),
    ("Stable Video Diffusion", (".time_stack.", "conditioner.embedders.0.open_clip.model.visual.")),
    ("Stable Diffusion XL", ("conditioner.embedders.1.",)),
    ("Stable Diffusion 1.5 or 2", ("cond_stage_model.",)),
    ("a U-Net of Stable Diffusion", ("input_blocks.",)),
    ("Flux", ("double_blocks.",)),
    ("Wan", ("blocks.0.cross_attn.", "blocks.0.self_attn.")),
    ("Gemma 3", ("layers.0.pre_feedforward_layernorm.",)),
    ("a language model", ("layers.0.self_attn.",)),
    ("T5", ("encoder.block.0.",)),
    ("a latent upscaler of LTX-2", ("post_upsample_res_blocks.",)),
    ("a VAE", ("decoder.up_blocks.", "decoder.up.", "decoder.conv_in.")),
)


def looks_like(keys: Iterable[str]) -> str:
    """The kind of model that has these keys, in words."""
    text = "\n".join(keys)
    return next((kind for kind, marks in KINDS if any(mark in text for mark in marks)), "no model that this pack knows")


def renamed(name: str, rules: Mapping) -> str:
    """`name` after each of the rules, a pattern and what re.sub makes of it."""
    for pattern, new in rules.items():
        name = re.sub(pattern, new, name)
    return name


def split(names: Iterable[str], components: Mapping[str, tuple]) -> dict[str, dict[str, str]]:
    """For each component: the module's name -> the name in the file. Names of no component are left out.

    components: for each the patterns of how its names begin, which are cut off, and the rules for the rest. A name
    belongs to the first that fits.
    """
    found = {component: {} for component in components}
    for name in names:
        for component, (starts, rules) in components.items():
            rest = next((name[it.end() :] for start in starts if (it := re.match(start, name))), None)
            if rest is not None:
                found[component][renamed(rest, rules)] = name
                break
    return found


def shapes(tensors: Mapping) -> dict[str, tuple[int, ...]]:
    """name -> shape of tensors by name."""
    return {name: tuple(value.shape) for name, value in tensors.items()}


def unpacked(given: Mapping[str, tuple], needed: Mapping[str, tuple]) -> dict[str, tuple]:
    """`given`, with the module's own shape for NVFP4 weights, which hold two values in a byte of rows of 16 each."""
    found = dict(given)
    for name in given:
        weight = name.removesuffix("_scale_2")
        if weight != name and len(shape := needed.get(weight, ())) == 2:
            rows, columns = (-(-side // 16) * 16 for side in shape)
            if given.get(weight) == (rows, columns // 2):
                found[weight] = shape
    return found


def some(kind: str, found: list[str]) -> str:
    named = ", ".join(found[:NAMED])
    return f"{kind} {len(found)} ({named}{', ...' if len(found) > NAMED else ''})"


def check(file: str, wanted: str, needed: Mapping, given: Mapping, found: str):
    """Compare shapes by name: those a module needs with those that a file gives for it.

    needed, given: name -> shape. found: what the file looks like, in words. Raises WrongModelFile, which names that,
    and what is missing, extra or mis-shaped.
    """
    missing = [name for name in needed if name not in given]
    extra = [name for name in given if name not in needed]
    unlike = [
        f"{name} {given[name]} instead of {shape}"
        for name, shape in needed.items()
        if name in given and given[name] != shape
    ]
    kinds = {"missing": missing, "extra": extra, "mis-shaped": unlike}
    if wrong := [some(kind, names) for kind, names in kinds.items() if names]:
        raise WrongModelFile(file=file, wanted=wanted, reason="; ".join(wrong), found=found)
