"""SVD's attention by the host's own function, and what stays the same from step to step, computed once per run.

The image reaches the U-Net as a single token: a softmax over one key is 1, so that a cross attention's result is that
token's value, whatever the query is. It, the embeddings of the frames' places and those of fps, motion and noise do
not meet the timestep (diffusers, unet_spatio_temporal_condition.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..host.layers import attention
from ..once import Run, run_of


class HostAttention:
    """A processor for diffusers' Attention, as its AttnProcessor2_0, with the host's attention."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        # float32 where the host's function makes a difference, as ComfyUI has it for this model.
        found = attention(
            attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context), heads=attn.heads,
            attn_precision=torch.float32,
        )  # fmt: skip
        return attn.to_out[1](attn.to_out[0](found))


class OneKey:
    """The same for attention to a single token: one result, [batch, 1, width], for every query of the run."""

    def __init__(self, run: Run):
        self.run = run

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None) -> torch.Tensor:
        def compute():
            # For as many queries as there are: a product of few rows is rounded otherwise.
            value = attn.to_v(encoder_hidden_states).expand(-1, hidden_states.shape[1], -1).contiguous()
            return attn.to_out[1](attn.to_out[0](value))[:, :1].clone()

        return self.run.once(attn, compute)


def cross_attention_blocks(unet) -> list[torch.nn.Module]:
    """The transformer blocks, spatial and temporal, that attend to the image."""
    return [it for it in unet.modules() if getattr(it, "attn2", None) is not None]


@contextmanager
def prepared(unet) -> Iterator[Run]:
    """Inside the block the U-Net attends by the host and keeps what does not change."""
    with run_of(unet) as run:
        unet.set_attn_processor(HostAttention())
        image = OneKey(run)
        for block in cross_attention_blocks(unet):
            block.attn2.set_processor(image)
            # It would normalize the queries.
            run.replace(block.norm2, lambda hidden_states: hidden_states)
        for module in unet.modules():
            if hasattr(module, "time_pos_embed"):
                run.keep(module.time_pos_embed)
        run.keep(unet.add_embedding)
        yield run
