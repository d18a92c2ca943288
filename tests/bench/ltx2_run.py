"""What the pack adds to a whole run of diffusers' pipeline."""

import math
import tempfile
from pathlib import Path
from unittest import mock

import conftest  # noqa: F401  the host's modules, and the pack as xavi9videos
import torch
from bench import ltx2_models as models
from bench.row import Row, check_same, overhead
from xavi9videos.nodes.host import latents as layout
from xavi9videos.nodes.ltx2 import checkpoint, decode, sampling
from xavi9videos.nodes.ltx2.model import LTX2Model
from xavi9videos.nodes.ltx2.text_encoder import Conditioning

SHOT = sampling.Shot(512, 384, 49, 25)
TEXT, SEED = 960, 3


def stock_pipeline(path: Path):
    """diffusers' own, on its own layers, with the tensors of the file."""
    from diffusers import FlowMatchEulerDiscreteScheduler, LTX2Pipeline

    modules, tensors = checkpoint.open_file(str(path))
    for name, module in modules.items():
        module.load_state_dict(tensors[name], assign=True)
        module.eval().requires_grad_(False)
    pipe = LTX2Pipeline(FlowMatchEulerDiscreteScheduler(), text_encoder=None, tokenizer=None, **modules)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Run:
    """The same clip by the pack's functions, as its nodes call them, and by the bare call of diffusers."""

    def __init__(self, path: Path):
        described = models.config(8, 4, TEXT)
        # Half the published width: for narrower ones torch on a CPU takes a slow convolution, if few frames go in.
        described["vae"]["decoder_base_channels"] = 64
        models.write_checkpoint(path, described, "fp32")
        self.handle = LTX2Model(str(path), "", "auto")
        self.pipe = stock_pipeline(path)
        dice = torch.Generator().manual_seed(1)
        states = torch.randn(1, 60, TEXT * models.TEXT_STATES, generator=dice)
        self.conditioning = Conditioning(states, states[:, :1])
        self.embeds, self.mask = sampling.padded(states, torch.float32)
        self.found = {}

    def ours(self, after_step):
        plan = sampling.schedule("distilled", 0, 0)
        shown = layout.step_callback(plan.steps, "LTXAV")

        def step(*clean):
            shown(*clean)
            after_step()

        # No room for what a run keeps from step to step, so that both compute the same.
        with mock.patch.object(sampling, "kept_bytes", lambda *_: math.inf):
            made = sampling.denoise(self.handle.patched(), self.conditioning, SHOT, plan, SEED, step)
        video = decode.video_of(self.handle, layout.parted(layout.joined(*made)), SHOT, "off")
        self.found["ours"] = (torch.stack(list(video.images())), video.audio()["waveform"])

    def peer(self, after_step):
        plan = sampling.schedule("distilled", 0, 0)
        made = self.pipe(
            prompt_embeds=self.embeds, prompt_attention_mask=self.mask, width=SHOT.width, height=SHOT.height,
            num_frames=SHOT.frames, frame_rate=float(SHOT.fps), num_inference_steps=plan.steps,
            sigmas=list(plan.sigmas), generator=torch.Generator().manual_seed(SEED), output_type="np",
            callback_on_step_end=lambda *_: after_step() or {}, **sampling.guidance_off(1.0),
        )  # fmt: skip
        self.found["peer"] = (torch.from_numpy(made.frames[0]), made.audio)

    def check(self):
        """Raise ArithmeticError where the two clips are not the same up to rounding."""
        for ours, peer, what in zip(self.found["ours"], self.found["peer"], ("picture", "sound"), strict=True):
            check_same(ours, peer, f"{what} of a run")


def ltx2_overhead() -> Row:
    """Seconds from node inputs to the last decoded frame and the sound, model loaded, without saving."""
    with tempfile.TemporaryDirectory() as name:
        return overhead("ltx2_overhead", Run(Path(name, "ltx-2-19b-distilled.safetensors")), 5)
