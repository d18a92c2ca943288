"""SVD-XT's denoising step, and what the pack adds to a whole run, against diffusers on the same weights."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import conftest  # noqa: F401  the host's modules, and the pack as xavi9videos
import torch
from bench.row import Row, check_same, compared, overhead, paired, seconds
from tiny import stock, svd
from xavi9videos.nodes.host import latents as layout
from xavi9videos.nodes.host import layers, memory
from xavi9videos.nodes.once import Run, run_of
from xavi9videos.nodes.svd import checkpoint, decode, sampling
from xavi9videos.nodes.svd.attention import HostAttention, prepared
from xavi9videos.nodes.svd.checkpoint import SVD
from xavi9videos.nodes.svd.nodes import LATENTS

# 382 million weights: half the published widths, with the published heads.
HALF = svd.PUBLISHED["unet"] | {"block_out_channels": [160, 320, 640, 640], "cross_attention_dim": 512}
FRAMES, HEIGHT, WIDTH = 8, 36, 64  # of latents

# A fifth to a quarter of the published widths, with as many values to a head as the pack takes a single file's to have.
# The VAE stays the tiny one, or decoding would be most of a run.
MIDDLE = {
    "unet": svd.PUBLISHED["unet"] | {"block_out_channels": [64, 128, 256, 256], "cross_attention_dim": 256,
                                     "num_attention_heads": [1, 2, 4, 4]},
    "image_encoder": svd.PUBLISHED["image_encoder"] | {
        "hidden_size": 320, "intermediate_size": 1280, "num_attention_heads": 4, "num_hidden_layers": 8,
        "projection_dim": 256},
}
STEPS, SEED, CHUNK = 6, 3, 4


class Step:
    """One call of both U-Nets with the same noisy latents and the same image, without guidance."""

    def __init__(self):
        from diffusers import UNetSpatioTemporalConditionModel as UNet

        torch.manual_seed(0)
        # torch multiplies a strided input another way when the weight wants a gradient, and rounds otherwise.
        self.stock = UNet.from_config(HALF).eval().requires_grad_(False)
        with torch.device("meta"):
            skeleton = UNet.from_config(HALF)
        self.module = layers.fill(skeleton, self.stock.state_dict(), torch.float32)
        dice = torch.Generator().manual_seed(1)
        self.inputs = {
            "sample": torch.randn(1, FRAMES, HALF["in_channels"], HEIGHT, WIDTH, generator=dice),
            "timestep": torch.tensor(0.5),
            "encoder_hidden_states": torch.randn(1, 1, HALF["cross_attention_dim"], generator=dice),
            "added_time_ids": torch.tensor([[6, 127, 0.02]]), "return_dict": False,
        }  # fmt: skip
        self.found = {}

    def ours(self):
        (self.found["ours"],) = self.module(**self.inputs)

    def peer(self):
        (self.found["peer"],) = self.stock(**self.inputs)

    def check(self):
        check_same(self.found["ours"], self.found["peer"], "a step")


def svd_step() -> Row:
    """Seconds of a step after the first, as 24 of 25 are: the first also computes what the run keeps."""
    both = Step()
    with prepared(both.module):
        seconds(both.ours)
        seconds(both.peer)
        both.check()
        found = paired(7, lambda: seconds(both.ours), lambda: seconds(both.peer))
    both.check()
    return compared("svd_step", *found, "s", "<=", 0.96)


@contextmanager
def keeping_nothing(unet) -> Iterator[Run]:
    """In place of prepared(): the host's attention alone, so that both compute the same."""
    with run_of(unet) as run:
        unet.set_attn_processor(HostAttention())
        yield run


class Clip:
    """The same clip by the pack's functions, as its node calls them, and by the bare call of diffusers.

    Both compute with the mapped file's own tensors, as memory differs in alignment and pages.
    """

    def __init__(self, path: Path):
        with mock.patch.dict(svd.TINY, MIDDLE):
            svd.write_checkpoint(path, weights="fp32")
            self.pipe = stock.svd_pipeline(path)
        _, tensors = checkpoint.open_file(str(path))
        for name, held in tensors.items():
            getattr(self.pipe, name).requires_grad_(False).load_state_dict(held, assign=True)
        self.handle = memory.Handle(memory.identity(str(path)), lambda: SVD(str(path)))
        image = torch.rand(1, 300, 400, 3, generator=torch.Generator().manual_seed(1))
        self.shot = sampling.Shot(image, 384, 256, 8, 7, 127, 0.02, (1.0, 3.0))
        self.picture = self.shot.picture
        self.found = {}

    def ours(self, after_step):
        shown = layout.step_callback(STEPS, LATENTS)

        def step(*clean):
            shown(*clean)
            after_step()

        with mock.patch.object(sampling, "prepared", keeping_nothing):
            made = sampling.denoise(self.handle.model, self.shot, STEPS, SEED, step)
        self.found["ours"] = torch.stack(list(decode.video_of(self.handle, made, self.shot, CHUNK).images()))

    def peer(self, after_step):
        shot = self.shot
        made = self.pipe(
            self.picture, width=shot.width, height=shot.height, num_frames=shot.frames, num_inference_steps=STEPS,
            min_guidance_scale=shot.guidance[0], max_guidance_scale=shot.guidance[1], fps=shot.fps,
            motion_bucket_id=shot.motion_bucket_id, noise_aug_strength=shot.noise_aug_strength,
            decode_chunk_size=CHUNK, generator=torch.Generator().manual_seed(SEED), output_type="np",
            callback_on_step_end=lambda *_: after_step() or {},
        )  # fmt: skip
        self.found["peer"] = torch.from_numpy(made.frames[0])

    def check(self):
        check_same(self.found["ours"], self.found["peer"], "frames of a run")


def svd_overhead() -> Row:
    """Seconds from node inputs to the last decoded frame, model loaded, without saving."""
    with tempfile.TemporaryDirectory() as name:
        return overhead("svd_overhead", Clip(Path(name, "svd_xt.safetensors")), 5)
