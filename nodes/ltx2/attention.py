"""LTX-2's attention by the host's own function, and what stays the same from step to step, computed once per run.

In LTX-2 2.0 the text does not meet the timestep: its keys and values in every block, the caption projections and the
four tables of rotary embeddings are the same at each step. In LTX-2.3 the text is shifted and scaled by the timestep,
and only the tables stay (Lightricks/LTX-2, ltx_core transformer; diffusers transformer_ltx2.py, cross_attn_mod).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch

from ..host.layers import attention
from ..once import Run, run_of
from .block import Levels, forward


class HostAttention:
    """A processor for diffusers' LTX2Attention, as its LTX2AudioVideoAttnProcessor, with the host's attention.

    LTX-2.3 gates each head. In a block that STG passes over, a token sees only itself: its own value.
    """

    def keys_values(self, attn, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return attn.norm_k(attn.to_k(context)), attn.to_v(context)

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None,
        query_rotary_emb=None, key_rotary_emb=None, perturbation_mask=None, all_perturbed=None,
    ) -> torch.Tensor:  # fmt: skip
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if all_perturbed:
            found = attn.to_v(context)
        else:
            turns = query_rotary_emb, query_rotary_emb if key_rotary_emb is None else key_rotary_emb
            found = self.attended(attn, hidden_states, context, attention_mask, turns)
        if attn.to_gate_logits is not None:
            gates = 2.0 * torch.sigmoid(attn.to_gate_logits(hidden_states))
            found = found.unflatten(2, (attn.heads, -1)).mul_(gates.unsqueeze(-1)).flatten(2, 3)
        return attn.to_out[1](attn.to_out[0](found))

    def attended(self, attn, hidden_states, context, mask, turns) -> torch.Tensor:
        """turns: the rotary embeddings of queries and keys, or None twice."""
        from diffusers.models.transformers import transformer_ltx2

        query = attn.norm_q(attn.to_q(hidden_states))
        key, value = self.keys_values(attn, context)
        if turns[0] is not None:
            turn = getattr(transformer_ltx2, f"apply_{attn.rope_type}_rotary_emb")
            query = turn(query, turns[0])
            key = turn(key, turns[1])
        return attention(query, key, value, heads=attn.heads, mask=mask)


class TextAttention(HostAttention):
    """The same for attention to the text, whose keys and values are kept in `run`."""

    def __init__(self, run: Run):
        self.run = run

    def keys_values(self, attn, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.run.once(attn, lambda: super(TextAttention, self).keys_values(attn, context))


def noise_levels(transformer, hooks: ExitStack, sound: float, stock: bool):
    """Have the sound at `sound` of the picture's noise level, and each gate between both take the other's level.

    So Lightricks and ComfyUI have it. With `stock`, a gate takes each token's own level as diffusers gives it, which
    differs where a picture or a sound is given.
    """
    it, now = transformer.config, {}
    factor = it.cross_attn_timestep_scale_multiplier / it.timestep_scale_multiplier

    def told(module, args, inputs):
        now["picture"], now["sound"] = inputs["sigma"], inputs["sigma"] * sound
        return args, inputs | {"audio_timestep": now["sound"], "audio_sigma": now["sound"]}

    hooks.callback(transformer.register_forward_pre_hook(told, with_kwargs=True).remove)
    if stock:
        return
    gates = {"sound": transformer.av_cross_attn_video_a2v_gate, "picture": transformer.av_cross_attn_audio_v2a_gate}
    for other, gate in gates.items():
        def level(module, args, inputs, other=other):
            return (now[other] * factor, *args[1:]), inputs

        hooks.callback(gate.register_forward_pre_hook(level, with_kwargs=True).remove)


def without_empty_masks(module, args, inputs):
    """A forward pre-hook: with registers where no text is, its mask hides nothing, and the fast kernels take none.

    Adding its zeros changes no bit.
    """
    for name in ("encoder_attention_mask", "audio_encoder_attention_mask"):
        if inputs.get(name) is not None and bool(inputs[name].all()):
            inputs[name] = None
    return args, inputs


@contextmanager
def prepared(transformer, keep: bool = True, sound: float = 1.0, stock: bool = False) -> Iterator[Run]:
    """Inside it the transformer attends by the host, computes its blocks in place and keeps what does not change.

    keep: False computes all of it at each step, where memory is short. sound, stock: as noise_levels() has them; with
    `stock` each token is modulated for itself too, for comparison.
    """
    with run_of(transformer) as run, ExitStack() as hooks:
        transformer.set_attn_processor(HostAttention())
        levels = Levels()
        if not stock:
            levels.found_by(transformer, hooks)
        for block in transformer.transformer_blocks:
            run.replace(block, partial(forward, block, levels))
        hooks.callback(transformer.register_forward_pre_hook(without_empty_masks, with_kwargs=True).remove)
        noise_levels(transformer, hooks, sound, stock)
        if keep:
            if not transformer.config.cross_attn_mod:
                text = TextAttention(run)
                for block in transformer.transformer_blocks:
                    block.attn2.set_processor(text)
                    block.audio_attn2.set_processor(text)
                run.keep(transformer.caption_projection)
                run.keep(transformer.audio_caption_projection)
            for module in (
                transformer.rope, transformer.audio_rope, transformer.cross_attn_rope,
                transformer.cross_attn_audio_rope,
            ):  # fmt: skip
                run.keep(module)
        yield run


def kept_bytes(transformer, tokens: int, batch: int, itemsize: int) -> int:
    """What a run keeps for texts of so many tokens: keys and values of both modalities in each block."""
    it = transformer.config
    if it.cross_attn_mod:
        return 0
    width = it.num_attention_heads * it.attention_head_dim
    audio = it.audio_num_attention_heads * it.audio_attention_head_dim
    return 2 * it.num_layers * (width + audio) * tokens * batch * itemsize
