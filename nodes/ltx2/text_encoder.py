"""Gemma 3 12B, the text encoder of LTX-2: the language model only, run on the real tokens only."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import ModelFileMissing, PromptTooLong, WrongModelFile, WrongTextEncoder
from ..host import layers, memory
from ..host.memory import Part
from ..weights import check, looks_like, shapes, unpacked

WANTED = "a Gemma 3 text encoder"
MAX_TOKENS = 1024
BOS = 2
# Google's folders, transformers' own since 5.0, and ComfyUI's files begin the language model's names with one of these.
PREFIXES = ("language_model.model.", "model.language_model.", "model.")
OTHERS = re.compile(r"vision|multi_modal_projector|lm_head|^spiece_model$|^tokenizer_json$|^scaled_fp8$")
SCALES = (".weight_scale", ".weight_scale_2", ".input_scale", layers.MARKER)
# google/gemma-3-12b-it, config.json: what the shapes do not tell.
SLIDING_WINDOW = 1024
ROPE = {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}


@dataclass(frozen=True)
class Conditioning:
    """The encoded prompts. positive, negative: [1, tokens, width x (layers + 1)], real tokens only, on the CPU."""

    positive: torch.Tensor
    negative: torch.Tensor


def language_model(names) -> dict[str, str]:
    """transformers' name in Gemma3TextModel -> the name in the file, of the language model's tensors."""
    found = {}
    for name in names:
        if not OTHERS.search(name):
            prefix = next((it for it in PREFIXES if name.startswith(it)), "")
            found[name.removeprefix(prefix)] = name
    return found


def text_config(shapes: Mapping[str, tuple]):
    """The Gemma3TextConfig of a file without one, from its shapes. Raises KeyError when a tensor is missing."""
    from transformers import Gemma3TextConfig

    first = "layers.0.self_attn."
    vocabulary, hidden = shapes["embed_tokens.weight"]
    (head,) = shapes[first + "q_norm.weight"]
    return Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=shapes["layers.0.mlp.gate_proj.weight"][0],
        num_hidden_layers=1 + max(int(it[1]) for name in shapes if (it := re.match(r"layers\.(\d+)\.", name))),
        num_attention_heads=shapes[first + "q_proj.weight"][0] // head,
        num_key_value_heads=shapes[first + "k_proj.weight"][0] // head,
        head_dim=head,
        query_pre_attn_scalar=head,
        sliding_window=SLIDING_WINDOW,
        **ROPE,
    )


def tokenizer(path: Path, tensors: Mapping[str, torch.Tensor]) -> Callable[[str], list[int]]:
    """text -> ids, the first of which is BOS: from the file's own SentencePiece model, or from a folder beside it.

    Raises ModelFileMissing.
    """
    model, folders = None, [path, path / "tokenizer", path.parent / "tokenizer", path.with_suffix("")]
    if "spiece_model" in tensors:
        model = tensors["spiece_model"].numpy().tobytes()
    elif found := next((it for folder in folders if (it := folder / "tokenizer.model").is_file()), None):
        model = found.read_bytes()
    if model:
        import sentencepiece

        pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        return lambda text: [BOS, *pieces.encode(text)]
    if found := next((it for folder in folders if (it := folder / "tokenizer.json").is_file()), None):
        from tokenizers import Tokenizer

        whole = Tokenizer.from_file(str(found))
        return lambda text: [BOS, *whole.encode(text, add_special_tokens=False).ids]
    folder = path if path.is_dir() else path.parent
    raise ModelFileMissing(file="tokenizer.model or tokenizer.json", folder=folder, model="ltx2")


class TextEncoder:
    """Gemma 3 from a Hugging Face folder or from a single file, as a Part. Raises ModelFileBroken or WrongModelFile."""

    @torch.inference_mode()
    def __init__(self, path: str):
        from transformers import Gemma3TextConfig, Gemma3TextModel

        place = Path(path)
        # A folder of text_encoder/ may hold a stale second copy under diffusers' names.
        files = sorted(place.glob("model*.safetensors")) if place.is_dir() else [place]
        if not files:
            raise ModelFileMissing(file="model*.safetensors", folder=path, model="ltx2")
        tensors = {key: it for file in files for key, it in layers.read(str(file))[0].items()}
        names = language_model(tensors)
        weights = {new: tensors[old] for new, old in names.items()}
        found = shapes(weights)
        try:
            if place.is_dir():
                given = json.loads((place / "config.json").read_text(encoding="utf-8"))
                given = given.get("text_config", given)
                config = Gemma3TextConfig.from_dict(given)
            else:
                config = text_config(found)
            with torch.device("meta"):
                model = Gemma3TextModel(config)
        except Exception as error:
            # transformers checks a config with errors of its own kind.
            reason = f"{error} is missing" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
            reason = " ".join(reason.split())
            raise WrongModelFile(file=place.name, wanted=WANTED, reason=reason, found=looks_like(tensors)) from error
        scale = config.hidden_size**0.5
        # A plain embedding, so that it becomes one of the host's layers; its scale follows it below.
        model.embed_tokens = torch.nn.Embedding(config.vocab_size, config.hidden_size, device="meta")
        needed = shapes(model.state_dict())
        given = {name: shape for name, shape in unpacked(found, needed).items() if not name.endswith(SCALES)}
        check(place.name, WANTED, needed, given, looks_like(tensors))
        self.width = config.hidden_size * (config.num_hidden_layers + 1)
        self.tokens = tokenizer(place, tensors)
        # Of transformers 4 there are two, each with a config of its own.
        ropes = [(name, it) for name, it in model.named_modules() if isinstance(it, type(model.rotary_emb))]
        rope = {key: it for name, own in ropes for key, it in type(own)(own.config).named_buffers(prefix=name)}
        # Lightricks' folder holds the bfloat16 weights as float32.
        stored = torch.bfloat16 if place.is_dir() else weights["layers.0.input_layernorm.weight"].dtype
        dtype = layers.compute_dtype(stored)
        # Kept where the published FP4 and FP8 encoders have them: ComfyUI multiplies in full precision here as well.
        layers.fill(model, weights, dtype, buffers=rope, full_precision=True)
        model.embed_tokens.register_forward_hook(lambda _, __, found: found.to(dtype) * scale)
        self.file, self.part = place.name, Part(model, path)

    def ids(self, prompt: str) -> torch.Tensor:
        """[1, tokens] of a prompt, stripped as diffusers does. Raises PromptTooLong."""
        found = self.tokens(prompt.strip())
        if len(found) > MAX_TOKENS:
            raise PromptTooLong(given=len(found), unit="tokens", family="LTX-2", allowed=MAX_TOKENS)
        return torch.tensor([found])

    def states(self, ids: torch.Tensor) -> torch.Tensor:
        """The states of all layers of these tokens, [1, tokens, width x (layers + 1)], on the CPU."""
        model, device = self.part.module, self.part.patcher.load_device
        found = model(input_ids=ids.to(device), output_hidden_states=True, use_cache=False).hidden_states
        # transformers 4 leaves its layers bound to themselves, which would hold the weights until a collection.
        for layer in model.layers:
            vars(layer).pop("forward", None)
        return torch.stack(found, dim=-1).flatten(2, 3).cpu()


def encode(path: str, prompt: str, negative_prompt: str, width: int) -> Conditioning:
    """Both prompts through the encoder at `path`, which is opened for this and closed after it.

    width: values per token that the checkpoint takes. Raises what TextEncoder raises, WrongTextEncoder, PromptTooLong
    and NotEnoughMemory.
    """
    encoder = TextEncoder(path)
    if encoder.width != width:
        raise WrongTextEncoder(file=encoder.file, given=encoder.width, wanted=width)
    prompts = [encoder.ids(prompt), encoder.ids(negative_prompt)]
    # The states of every layer, and as much again for one layer's own work and the stacked copy.
    activations = 3 * max(it.numel() for it in prompts) * width * 4
    try:
        memory.load([encoder.part], activations, "The text encoder")
        return Conditioning(*map(encoder.states, prompts))
    finally:
        memory.unload(encoder.part)
