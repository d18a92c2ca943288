"""LTX-2's transformer block: diffusers' own (transformer_ltx2.py, LTX2VideoTransformerBlock) in less memory.

diffusers makes a new tensor in each operation and, where a picture is given, all modulations of each token in each
block, which in LTX-2.3 is more than the rest of a step, although the tokens have two or three noise levels in all. Here
results take the place of their operands, bit for bit the same, and a modulation is made for each level when it is its
turn.
"""

from contextlib import ExitStack

import torch


class Levels:
    """The noise levels of a step's video tokens, each only once.

    where: the level of each token, [tokens]; None until tokens of one video have had several.
    """

    def __init__(self):
        self.where = None

    def found_by(self, transformer, hooks: ExitStack):
        """Have the modules that make modulations make those of each level, and not of each token's timestep."""
        for module in (transformer.time_embed, transformer.av_cross_attn_video_scale_shift):
            hooks.callback(module.register_forward_pre_hook(self.few, with_kwargs=True).remove)
        hooks.callback(transformer.time_embed.register_forward_hook(self.every, with_kwargs=True).remove)

    def few(self, module, args, inputs):
        """A forward pre-hook. args: the timestep of each token of each video of the batch, in a row."""
        timesteps = args[0].view(inputs["batch_size"], -1)
        if timesteps.shape[1] > 1:
            timesteps, self.where = timesteps.unique(dim=1, return_inverse=True)
        return (timesteps.flatten(), *args[1:]), inputs

    def every(self, module, args, inputs, found):
        """A forward hook: the last layer, which is not ours, takes each token's own embedding."""
        modulations, embedded = found
        return modulations, self.spread(embedded.unflatten(0, (inputs["batch_size"], -1))).flatten(0, 1)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """[batch, levels, width] -> [batch, tokens, width], or [batch, 1, width] where all tokens have one level."""
        return values if self.where is None or values.shape[1] == 1 else values[:, self.where]


class Modulations:
    """The rows of a table [n, width], each with its part of what was made of the timestep.

    made: [batch, levels, n * width]. Each is [batch, tokens or 1, width].
    """

    def __init__(self, table: torch.Tensor, made: torch.Tensor, levels: Levels):
        self.table, self.made, self.levels = table, made.unflatten(2, (len(table), -1)), levels

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.levels.spread(self.table[row].to(self.made.device) + self.made[:, :, row])

    def moved(self, x: torch.Tensor, shift: int, scale: int) -> torch.Tensor:
        """x scaled by one row and shifted by another."""
        return (x * (1 + self[scale])).add_(self[shift])


def forward(
    block, levels: Levels, hidden_states, audio_hidden_states, encoder_hidden_states, audio_encoder_hidden_states,
    temb, temb_audio, temb_ca_scale_shift, temb_ca_audio_scale_shift, temb_ca_gate, temb_ca_audio_gate,
    temb_prompt=None, temb_prompt_audio=None, video_rotary_emb=None, audio_rotary_emb=None, ca_video_rotary_emb=None,
    ca_audio_rotary_emb=None, encoder_attention_mask=None, audio_encoder_attention_mask=None, self_attention_mask=None,
    audio_self_attention_mask=None, a2v_cross_attention_mask=None, v2a_cross_attention_mask=None,
    use_a2v_cross_attention=True, use_v2a_cross_attention=True, perturbation_mask=None, all_perturbed=None,
):  # fmt: skip
    """LTX2VideoTransformerBlock.forward with HostAttention, in the place of hidden_states and audio_hidden_states."""
    video, audio = hidden_states, audio_hidden_states
    text, audio_text = encoder_hidden_states, audio_encoder_hidden_states

    # The rows are shift, scale and gate of the attention to itself, of the feed-forward layers and, in LTX-2.3, of the
    # attention to the text.
    own = Modulations(block.scale_shift_table, temb, levels)
    audio_own = Modulations(block.audio_scale_shift_table, temb_audio, levels)

    moved = own.moved(block.norm1(video), 0, 1)
    found = block.attn1(moved, None, self_attention_mask, video_rotary_emb, all_perturbed=all_perturbed)
    video.add_(found.mul_(own[2]))
    moved = audio_own.moved(block.audio_norm1(audio), 0, 1)
    found = block.audio_attn1(moved, None, audio_self_attention_mask, audio_rotary_emb, all_perturbed=all_perturbed)
    audio.add_(found.mul_(audio_own[2]))

    moved, audio_moved = block.norm2(video), block.audio_norm2(audio)
    if block.cross_attn_adaln:
        text = Modulations(block.prompt_scale_shift_table, temb_prompt, levels).moved(text, 0, 1)
        audio_rows = Modulations(block.audio_prompt_scale_shift_table, temb_prompt_audio, levels)
        audio_text = audio_rows.moved(audio_text, 0, 1)
        moved, audio_moved = own.moved(moved, 6, 7), audio_own.moved(audio_moved, 6, 7)
    found = block.attn2(moved, text, encoder_attention_mask)
    audio_found = block.audio_attn2(audio_moved, audio_text, audio_encoder_attention_mask)
    if block.cross_attn_adaln:
        found.mul_(own[8])
        audio_found.mul_(audio_own[8])
    video.add_(found)
    audio.add_(audio_found)

    # Between both the rows are scale and shift on the way to the picture, the same on the way to the sound, and a gate.
    table, audio_table = block.video_a2v_cross_attn_scale_shift_table, block.audio_a2v_cross_attn_scale_shift_table
    both = Modulations(table[:4], temb_ca_scale_shift, levels)
    audio_both = Modulations(audio_table[:4], temb_ca_audio_scale_shift, levels)
    norm, audio_norm = block.audio_to_video_norm(video), block.video_to_audio_norm(audio)
    if use_a2v_cross_attention:
        moved, audio_moved = both.moved(norm, 1, 0), audio_both.moved(audio_norm, 1, 0)
        found = block.audio_to_video_attn(
            moved, audio_moved, a2v_cross_attention_mask, ca_video_rotary_emb, ca_audio_rotary_emb
        )
        video.add_(found.mul_(Modulations(table[4:], temb_ca_gate, levels)[0]))
    if use_v2a_cross_attention:
        moved, audio_moved = both.moved(norm, 3, 2), audio_both.moved(audio_norm, 3, 2)
        found = block.video_to_audio_attn(
            audio_moved, moved, v2a_cross_attention_mask, ca_audio_rotary_emb, ca_video_rotary_emb
        )
        audio.add_(found.mul_(Modulations(audio_table[4:], temb_ca_audio_gate, levels)[0]))
    del norm, moved, found

    moved = own.moved(block.norm3(video), 3, 4)
    video.add_(block.ff(moved).mul_(own[5]))
    moved = audio_own.moved(block.audio_norm3(audio), 3, 4)
    audio.add_(block.audio_ff(moved).mul_(audio_own[5]))
    return video, audio
