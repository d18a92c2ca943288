"""Gemma 3 12B in a few megabytes: ComfyUI's single file and Google's folder, random weights from a seed.

48 layers as the real one, because LTX-2 reads the embeddings and every layer's output: 49 states.
"""

import functools
import io
import json
from pathlib import Path

import torch
from tiny.weights import dtype, fan_in, normal, quantize, quantize_fp4, save

VOCABULARY, _HEAD, _FEED_FORWARD = 640, 64, 64
_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")  # ids 0 to 4, as Gemma's
SENTENCES = """A red fox walks through fresh snow at dawn, the camera follows slowly, soft light, shallow focus.
Low sun over the dunes; the wind lifts fine sand and the long shadows move across the ridge.
A cup of coffee on a wooden table, steam rises and curls, morning light falls through the window.
Waves break on black rocks under a stormy sky while gulls cry and thunder rolls in the distance.
An old man plays the violin in an empty street at night; rain, neon signs, wet asphalt reflections.
Close-up of a robot's hand that picks up a small blue flower, cinematic lighting, 24 frames per second.
Time-lapse of a city skyline from dusk to dark, cars become ribbons of white and red light.
A child laughs and runs with a kite along the beach. Handheld camera, warm colours, natural sound.
blurry, low quality, distorted, watermark, text, jittery motion, worst quality, inconsistent motion
Una mujer camina por el mercado; se oyen voces, campanas y una guitarra española. ¿Quién la sigue?
""".splitlines()


@functools.cache
def sentencepiece_model() -> bytes:
    """A SentencePiece model with Gemma's settings and 640 pieces; the same bytes every time."""
    import sentencepiece

    model = io.BytesIO()
    special = dict(zip(("pad", "eos", "bos", "unk"), _SPECIAL))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, model_type="bpe", vocab_size=VOCABULARY,
        byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False, num_threads=1,
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, user_defined_symbols=["<mask>"],
        minloglevel=2, **{f"{name}_id": index for index, name in enumerate(special)},
        **{f"{name}_piece": piece for name, piece in special.items()})
    return model.getvalue()


def _shapes(hidden: int, layers: int) -> dict[str, tuple[int, ...]]:
    layer = {"self_attn.q_proj": (_HEAD, hidden), "self_attn.k_proj": (_HEAD, hidden),
             "self_attn.v_proj": (_HEAD, hidden), "self_attn.o_proj": (hidden, _HEAD), "self_attn.q_norm": (_HEAD,),
             "self_attn.k_norm": (_HEAD,), "mlp.gate_proj": (_FEED_FORWARD, hidden),
             "mlp.up_proj": (_FEED_FORWARD, hidden), "mlp.down_proj": (hidden, _FEED_FORWARD),
             "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
             "pre_feedforward_layernorm": (hidden,), "post_feedforward_layernorm": (hidden,)}
    shapes = {f"model.layers.{index}.{name}.weight": shape for index in range(layers) for name, shape in layer.items()}
    return shapes | {"model.embed_tokens.weight": (VOCABULARY, hidden), "model.norm.weight": (hidden,)}


def _value(key: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """float32. Norms count from zero, as Gemma multiplies by 1 + weight; its embeddings are scaled by the model."""
    std = 0.1 if len(shape) < 2 else shape[1] ** -0.5 if "embed_tokens" in key else fan_in(shape) ** -0.5
    return normal(f"{seed} gemma {key}", shape, std)


# What a text encoder has to leave alone: the real file sees pictures too.
_VISION = {"vision_model.embeddings.patch_embedding.weight": (16, 3, 14, 14),
           "vision_model.embeddings.position_embedding.weight": (4, 16),
           "vision_model.encoder.layers.0.layer_norm1.weight": (16,),
           "multi_modal_projector.mm_input_projection_weight": (16, 32),
           "multi_modal_projector.mm_soft_emb_norm.weight": (16,)}


def _marker(layer: str, weights: str) -> dict[str, torch.Tensor]:
    if weights == "fp8_legacy":
        return {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    text = json.dumps({"format": "nvfp4" if weights == "nvfp4" else "float8_e4m3fn"}).encode()
    return {layer + ".comfy_quant": torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def write_file(path: Path, *, weights: str = "bf16", seed: int = 0, hidden: int = 32, layers: int = 48) -> None:
    """Writes ComfyUI's single file. weights: bf16, fp32, fp8 (.comfy_quant, .weight_scale), fp8_legacy (scaled_fp8,
    .scale_weight) or fp4_mixed; in the last three every projection is float8_e4m3fn with one scale, and with
    fp4_mixed the feed-forwards' NVFP4; the rest is BF16.

    Another hidden size or number of layers makes an encoder that does not fit the model. ValueError for other weights.
    """
    plain = dtype("fp8" if weights in ("fp8_legacy", "fp4_mixed") else weights)
    shapes = _shapes(hidden, layers) | _VISION
    tensors = {key: _value(key, shape, seed).to(plain) for key, shape in sorted(shapes.items())}
    quantized = weights.startswith("fp8") or weights == "fp4_mixed"
    for key in [key for key in tensors if quantized and key.endswith("_proj.weight")]:
        layer, suffix = key.removesuffix(".weight"), ".scale_weight" if weights == "fp8_legacy" else ".weight_scale"
        value, four = _value(key, shapes[key], seed), weights == "fp4_mixed" and ".mlp." in key
        if four:
            tensors[key], tensors[key + "_scale"], tensors[key + "_scale_2"] = quantize_fp4(value)
        else:
            tensors[key], tensors[layer + suffix] = quantize(value)
        tensors |= _marker(layer, "nvfp4" if four else weights)
    tensors["spiece_model"] = torch.frombuffer(bytearray(sentencepiece_model()), dtype=torch.uint8)
    save(path, tensors, {"format": "pt"})


def _config() -> dict:
    # As Google's config.json says it, which transformers 4 and 5 both read.
    rope = {"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    text = {"hidden_size": 32, "num_hidden_layers": 48, "num_attention_heads": 1, "num_key_value_heads": 1,
            "head_dim": _HEAD, "query_pre_attn_scalar": _HEAD, "intermediate_size": _FEED_FORWARD,
            "vocab_size": VOCABULARY, "sliding_window": 1024, **rope}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
              "image_size": 28, "patch_size": 14}
    return {"text_config": text, "vision_config": vision, "mm_tokens_per_image": 4}


def write_text_encoder(folder: Path, *, weights: str = "bf16", seed: int = 0, max_shard_size: str = "1GB") -> None:
    """Writes config.json and the weights (bf16 or fp32) as transformers saves Gemma3ForConditionalGeneration.

    The text weights are write_file()'s of the same seed. One model.safetensors, or shards of max_shard_size.
    """
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.device("meta"):
        model = Gemma3ForConditionalGeneration(Gemma3Config(**_config()))
    tensors = {key: _value(key.replace("model.language_model.", "model."), value.shape, seed).to(dtype(weights))
               for key, value in model.state_dict().items() if key != "lm_head.weight"}
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"]
    model.load_state_dict(tensors, assign=True)
    model.tie_weights()
    model.config.dtype = model.config.text_config.dtype = model.config.vision_config.dtype = dtype(weights)
    model.save_pretrained(folder, max_shard_size=max_shard_size)


def _merges(pieces: dict[str, int]) -> list[list[str]]:
    """The pairs that make each piece, best piece first: SentencePiece's rule as the tokenizers library spells it."""
    merges = []
    for piece, index in pieces.items():
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        merges += [(index, pieces[a], pieces[b], [a, b]) for a, b in splits if a in pieces and b in pieces]
    return [pair for *_, pair in sorted(merges)]


def _tokenizer_json(processor) -> dict:
    pieces = {processor.id_to_piece(index): index for index in range(processor.get_piece_size())}
    plain = {piece: index for piece, index in pieces.items() if piece not in _SPECIAL and not processor.is_byte(index)}
    added = [{"id": index, "content": piece, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for index, piece in enumerate(_SPECIAL)]
    single = [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"SpecialToken": {"id": "<bos>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair,
                           "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": pieces, "merges": _merges(plain)}}


def write_tokenizer(folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and tokenizer.model; AutoTokenizer needs no protobuf for them."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
    config = {"add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False,
              "model_max_length": 1000000000000000019884624838656, "sp_model_kwargs": None,
              "spaces_between_special_tokens": False, "tokenizer_class": "GemmaTokenizer",
              "use_default_system_prompt": False,
              **{f"{piece.strip('<>')}_token": piece for piece in _SPECIAL}}
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer_json(processor), ensure_ascii=False), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())


def write_folder(path: Path, *, weights: str = "bf16", seed: int = 0) -> None:
    """Writes a Hugging Face folder as google/gemma-3-12b-it has it; its text weights are write_file()'s."""
    write_text_encoder(path, weights=weights, seed=seed)
    write_tokenizer(path)
