"""A test-only node pack: ComfyUI's own SVD nodes open the tiny SVD-XT, and draw and look at it as diffusers does.

Linked beside the pack and core_pack by ComfyHost(packs=[REPO, ...]); it imports nothing of the pack.
"""

from types import SimpleNamespace
from unittest import mock

import torch
from comfy import clip_vision, sd, supported_models
from comfy_api.latest import ComfyExtension, io
from comfy_extras.nodes_video_model import SVD_img2vid_Conditioning

# The sizes of tests/tiny/svd.py, where the host has those of the published model; all else is the host's.
UNET = {"model_channels": 64, "context_dim": 32}
VAE = {"ch": 32, "ch_mult": [1, 1, 1, 1]}
CLIP = {
    "hidden_act": "gelu", "hidden_size": 80, "image_size": 224, "intermediate_size": 160, "layer_norm_eps": 1e-5,
    "model_type": "clip_vision_model", "num_attention_heads": 1, "num_channels": 3, "num_hidden_layers": 3,
    "patch_size": 14, "projection_dim": 32,
}  # fmt: skip


class TinyVAE(sd.AutoencodingEngine):
    def __init__(self, *, encoder_config: dict, decoder_config: dict, **others):
        for config in (encoder_config, decoder_config):
            config["params"] |= VAE
        super().__init__(encoder_config=encoder_config, decoder_config=decoder_config, **others)


class TinyClip(clip_vision.ClipVisionModel):
    def __init__(self, path_of_config: str):
        super().__init__(CLIP)


def load_clip(tensors: dict, *args, stock=clip_vision.load_clipvision_from_sd):
    # The host knows a ViT-H by its 31st layer.
    return stock(tensors | {"vision_model.encoder.layers.30.layer_norm1.weight": torch.empty(0)}, *args)


# All are looked up when a checkpoint is opened.
supported_models.SVD_img2vid.unet_config |= UNET
sd.AutoencodingEngine = TinyVAE
clip_vision.ClipVisionModel = TinyClip
clip_vision.load_clipvision_from_sd = load_clip


class Noise(io.ComfyNode):
    """NOISE as diffusers draws it: from one generator, after the image's own, the frames' in one piece."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestSVDNoise", inputs=[io.Int.Input("seed")], outputs=[io.Noise.Output()])

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        def draw(latent: dict) -> torch.Tensor:
            generator, (frames, channels, height, width) = torch.Generator().manual_seed(seed), latent["samples"].shape
            torch.randn(1, 3, height * 8, width * 8, generator=generator)
            return torch.randn(1, frames, channels, height, width, generator=generator)[0]

        return io.NodeOutput(SimpleNamespace(seed=seed, generate_noise=draw))


class Clip(io.ComfyNode):
    """A CLIP_VISION that sees the picture as diffusers and Stability AI show it: all of it, squeezed, not rounded."""

    @classmethod
    def define_schema(cls):
        inputs, outputs = [io.ClipVision.Input("clip_vision")], [io.ClipVision.Output()]
        return io.Schema(node_id="TestSVDClip", inputs=inputs, outputs=outputs)

    @classmethod
    def execute(cls, clip_vision) -> io.NodeOutput:
        from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
            _resize_with_antialiasing,
        )

        def encode_image(image: torch.Tensor) -> SimpleNamespace:
            side = clip_vision.image_size
            pixels = _resize_with_antialiasing(image.movedim(-1, 1) * 2 - 1, (side, side)) / 2 + 0.5
            mean, std = (torch.tensor(it)[:, None, None] for it in (clip_vision.image_mean, clip_vision.image_std))
            clip_vision.encode_image(image)  # loads it
            return SimpleNamespace(image_embeds=clip_vision.model(pixel_values=(pixels - mean) / std)[2])

        return io.NodeOutput(SimpleNamespace(encode_image=encode_image))


class Conditioning(io.ComfyNode):
    """SVD_img2vid_Conditioning with the noise of the image as diffusers draws it, times `factor`."""

    @classmethod
    def define_schema(cls):
        inputs = [
            io.ClipVision.Input("clip_vision"), io.Image.Input("init_image"), io.Vae.Input("vae"),
            *map(io.Int.Input, ("width", "height", "video_frames", "motion_bucket_id", "fps")),
            io.Float.Input("augmentation_level"), io.Int.Input("seed"), io.Float.Input("factor"),
        ]  # fmt: skip
        outputs = [io.Conditioning.Output(), io.Conditioning.Output(), io.Latent.Output()]
        return io.Schema(node_id="TestSVDConditioning", inputs=inputs, outputs=outputs)

    @classmethod
    def execute(cls, seed: int, factor: float, **inputs) -> io.NodeOutput:
        def draw(pixels: torch.Tensor) -> torch.Tensor:
            shape = pixels.movedim(-1, 1).shape
            return factor * torch.randn(shape, generator=torch.Generator().manual_seed(seed)).movedim(1, -1)

        with mock.patch("torch.randn_like", draw):
            return io.NodeOutput(*SVD_img2vid_Conditioning().encode(**inputs))


class SVDCorePack(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [Noise, Clip, Conditioning]


async def comfy_entrypoint() -> SVDCorePack:
    return SVDCorePack()
