"""A test-only node pack: ComfyUI's own LTX-2 nodes open the tiny Gemma, and what flows through a graph gets out of it.

Linked beside the pack by ComfyHost(packs=[REPO, ...]); it imports nothing of the pack.
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import folder_paths
import torch
from comfy.ldm.common_dit import rms_norm
from comfy.nested_tensor import NestedTensor
from comfy.text_encoders import llama, lt
from comfy_api.latest import ComfyExtension, Input, io

HIDDEN, STATES, VIDEO, AUDIO = 32, 49, 64, 32


@dataclass
class TinyGemma(llama.Gemma3_12B_Config):
    """The sizes of tests/tiny/gemma.py; all else is the host's. Without a small vision tower it would take 1.6 GB."""

    vocab_size: int = 640
    hidden_size: int = HIDDEN
    intermediate_size: int = 64
    num_attention_heads: int = 1
    num_key_value_heads: int = 1
    head_dim = 64
    vision_config = {
        **llama.GEMMA3_VISION_CONFIG, "hidden_size": 16, "image_size": 28, "intermediate_size": 16,
        "num_attention_heads": 2, "num_hidden_layers": 1,
    }  # fmt: skip
    mm_tokens_per_image = 4


class TinyTextEncoder(lt.LTXAVTEModel):
    """The host's class has 3840 x 49 -> 3840 written into it, and LTX-2.3's 4096 and 2048."""

    def __init__(self, dtype_llama=None, device="cpu", dtype=None, text_projection_type="single_linear",
                 model_options={}):
        super().__init__(dtype_llama, device, dtype, "none", model_options)
        self.text_projection_type = text_projection_type
        operations, width = self.gemma3_12b.operations, HIDDEN * STATES
        where = {"dtype": dtype, "device": device}
        if text_projection_type == "dual_linear":
            both = lt.DualLinearProjection(width, VIDEO, AUDIO, operations=operations, **where)
            self.text_embedding_projection = both
        else:
            self.text_embedding_projection = operations.Linear(width, HIDDEN, bias=False, **where)


# Both are looked up when a text encoder is opened.
llama.Gemma3_12B_Config = TinyGemma
lt.LTXAVTEModel = TinyTextEncoder


def plain(value):
    """What torch.load(weights_only=True) reads: tensors, numbers and texts in lists and dicts; others become None."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, NestedTensor):
        return plain(value.unbind())
    if isinstance(value, Input.Video):
        parts = value.get_components()
        return plain({"images": parts.images, "audio": parts.audio, "fps": float(parts.frame_rate),
                      "size": value.get_dimensions(), "frames": value.get_frame_count(),
                      "seconds": value.get_duration()})
    if isinstance(value, dict):
        return {key: plain(it) for key, it in value.items()}
    if isinstance(value, list | tuple):
        return [plain(it) for it in value]
    if hasattr(value, "positive"):
        return {"positive": plain(value.positive), "negative": plain(value.negative)}
    return value if isinstance(value, int | float | str | None) else None


class Dump(io.ComfyNode):
    """Writes what it is given to output/<name>.pt."""

    @classmethod
    def define_schema(cls):
        inputs = [io.AnyType.Input("value"), io.String.Input("name")]
        return io.Schema(node_id="TestDump", inputs=inputs, outputs=[], is_output_node=True)

    @classmethod
    def execute(cls, value, name: str) -> io.NodeOutput:
        torch.save(plain(value), Path(folder_paths.get_output_directory()) / f"{name}.pt")
        return io.NodeOutput()


class CoreStates(io.ComfyNode):
    """The pack's LTX2_CONDITIONING of the states that the host's own Gemma makes.

    exact: with Gemma's norms as Google and transformers have them, x (1 + weight) in float32. The host adds the 1 in
    the file's bfloat16, which rounds it.
    """

    @classmethod
    def define_schema(cls):
        inputs = [io.Clip.Input("clip"), io.String.Input("prompt"), io.String.Input("negative_prompt"),
                  io.Boolean.Input("exact")]
        outputs = [io.Custom("LTX2_CONDITIONING").Output()]
        return io.Schema(node_id="TestCoreStates", inputs=inputs, outputs=outputs)

    @classmethod
    def execute(cls, clip, prompt: str, negative_prompt: str, exact: bool) -> io.NodeOutput:
        stock = llama.RMSNorm.forward
        try:
            if exact:
                llama.RMSNorm.forward = exact_norm
            positive, negative = cls.states(clip, prompt), cls.states(clip, negative_prompt)
        finally:
            llama.RMSNorm.forward = stock
        return io.NodeOutput(SimpleNamespace(positive=positive, negative=negative))

    @classmethod
    def states(cls, clip, prompt: str) -> torch.Tensor:
        """[1, tokens, width x states], real tokens only, as the host's LTXAVTEModel cuts and orders them."""
        tokens = clip.tokenize(prompt)
        gemma = clip.cond_stage_model.gemma3_12b
        clip.load_model(tokens)
        gemma.set_clip_options({"execution_device": clip.patcher.load_device})
        found, _, extra = gemma.encode_token_weights(tokens["gemma3_12b"])
        gemma.reset_clip_options()
        return found[:, :, -int(extra["attention_mask"].sum()):].movedim(1, -1).flatten(2, 3).cpu()


def exact_norm(norm: llama.RMSNorm, x: torch.Tensor) -> torch.Tensor:
    return rms_norm(x, norm.weight.float() + float(norm.add), norm.eps)


class PackedNoise(io.ComfyNode):
    """A NOISE whose numbers stand as diffusers draws them where it appends tokens: token by token, then the sound."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestPackedNoise", inputs=[io.Int.Input("seed")], outputs=[io.Noise.Output()])

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        def generate_noise(latent: dict) -> NestedTensor:
            video, audio = latent["samples"].unbind()
            generator = torch.Generator().manual_seed(seed)
            made = [torch.randn(1, video[0, 0].numel(), 128, generator=generator),
                    torch.randn(1, audio.shape[2], 128, generator=generator)]
            return NestedTensor([made[0].unflatten(1, video.shape[2:]).permute(0, 4, 1, 2, 3),
                                 made[1].unflatten(2, (8, 16)).transpose(1, 2)])

        return io.NodeOutput(SimpleNamespace(seed=seed, generate_noise=generate_noise))


class CorePack(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [Dump, CoreStates, PackedNoise]


async def comfy_entrypoint() -> CorePack:
    return CorePack()
