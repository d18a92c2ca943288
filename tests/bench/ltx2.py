"""LTX-2's denoising step and text encoder against those of ComfyUI and diffusers, on the same weights."""

import json
import tempfile
from pathlib import Path

import conftest  # noqa: F401  the host's modules, and the pack as xavi9videos
import torch
from bench import ltx2_models as models
from bench.row import Row, check_same, compared, paired, seconds
from tiny.gemma import SENTENCES
from tiny.names import MODEL
from xavi9videos.nodes.host import layers
from xavi9videos.nodes.ltx2 import attention, checkpoint, sampling
from xavi9videos.nodes.ltx2 import config as describe
from xavi9videos.nodes.ltx2.text_encoder import MAX_TOKENS, TextEncoder

FPS = 25
TEXT = 960  # a quarter of Gemma's 3840, as the widths are of the transformer's
PROMPT_TOKENS = 60


def transformers(described: dict) -> tuple[torch.nn.Module, torch.nn.Module]:
    """diffusers' transformer as the pack fills it, and ComfyUI's; both have the same tensors."""
    dice = torch.Generator().manual_seed(0)
    core = models.core_transformer(described).eval().requires_grad_(False)
    state = {MODEL + name: models.value(name, it.shape, dice) for name, it in core.state_dict().items()}
    core.load_state_dict({name.removeprefix(MODEL): it for name, it in state.items()}, assign=True)
    made = describe.described({"config": json.dumps(described)})
    module = checkpoint.skeletons(made, TEXT * models.TEXT_STATES)["transformer"]
    names = checkpoint.split(state, checkpoint.COMPONENTS)["transformer"]
    return layers.fill(module, {new: state[old] for new, old in names.items()}, torch.float32), core


class Step:
    """One call of both transformers with the same noisy latents: a distilled step, without guidance, at noise 0.7."""

    def __init__(self, shot: sampling.Shot, version: str):
        self.module, self.core = transformers(models.config(8, 4, TEXT, version))
        width, height = shot.grid_size
        self.size = ((shot.grid_frames - 1) // 8 + 1, height // 32, width // 32)
        dice = torch.Generator().manual_seed(1)
        self.video = torch.randn(1, 128, *self.size, generator=dice)
        self.audio = torch.randn(1, 8, round(shot.grid_frames / shot.fps * 25), 16, generator=dice)
        # LTX-2.3's connectors give the text in the widths of picture and sound.
        widths = (1024, 512) if version == "2.3" else (TEXT, TEXT)
        self.texts = [torch.randn(1, MAX_TOKENS, width, generator=dice) for width in widths]
        self.found = {}
        frames, height, width = self.size
        # As LTX2Pipeline calls it: the mask is all ones, because registers stand where no text is.
        mask, timestep = torch.ones(1, MAX_TOKENS, dtype=torch.int64), torch.tensor([700.0])
        self.inputs = {
            "hidden_states": self.video.permute(0, 2, 3, 4, 1).flatten(1, 3),
            "audio_hidden_states": self.audio.permute(0, 2, 1, 3).flatten(2),
            "encoder_hidden_states": self.texts[0], "audio_encoder_hidden_states": self.texts[1],
            "encoder_attention_mask": mask, "audio_encoder_attention_mask": mask,
            "timestep": timestep, "sigma": timestep, "use_cross_timestep": False,
            "num_frames": frames, "height": height, "width": width, "audio_num_frames": self.audio.shape[2],
            "fps": float(shot.fps), "return_dict": False,
            "video_coords": self.module.rope.prepare_video_coords(1, *self.size, "cpu", fps=float(shot.fps)),
            "audio_coords": self.module.audio_rope.prepare_audio_coords(1, self.audio.shape[2], "cpu"),
        }  # fmt: skip

    def ours(self):
        video, audio = self.module(**self.inputs)
        self.found["ours"] = (sampling.unpacked(video, self.size), sampling.unpacked_audio(audio))

    def peer(self):
        noisy = [self.video.clone(), self.audio.clone()]
        text = torch.cat(self.texts, -1)
        self.found["peer"] = self.core(noisy, torch.tensor([0.7]), text, None, frame_rate=FPS)

    def check(self):
        for ours, peer, what in zip(self.found["ours"], self.found["peer"], ("picture", "sound"), strict=True):
            check_same(ours, peer, f"{what} of a step")


def step(name: str, shot: sampling.Shot, runs: int, budget: float, version: str = "2.0") -> Row:
    """Seconds of a step after the first, as 7 of 8 or 39 of 40 are: the first also computes what the run keeps."""
    both = Step(shot, version)
    with attention.prepared(both.module):
        seconds(both.ours)
        seconds(both.peer)
        both.check()
        found = paired(runs, lambda: seconds(both.ours), lambda: seconds(both.peer))
    both.check()
    return compared(name, *found, "s", "<=", budget)


def ltx2_step_640() -> Row:
    return step("ltx2_step_640", sampling.Shot(320, 256, 57, FPS), 7, 0.85)


def ltx2_step_6144() -> Row:
    return step("ltx2_step_6144", sampling.Shot(768, 512, 121, FPS), 3, 0.97)


def ltx23_step_640() -> Row:
    # Only the tables stay from step to step, and products, attention and GELU, the same in both, are 94 % of it.
    return step("ltx23_step_640", sampling.Shot(320, 256, 57, FPS), 7, 1.02, "2.3")


def ltx23_step_6144() -> Row:
    return step("ltx23_step_6144", sampling.Shot(768, 512, 121, FPS), 3, 0.99, "2.3")


def ltx2_text_encode() -> Row:
    """Seconds from a prompt of 60 tokens to its states; diffusers pads it to 1024."""
    from diffusers import LTX2Pipeline
    from transformers import AutoTokenizer, Gemma3ForConditionalGeneration

    with tempfile.TemporaryDirectory() as name:
        models.write_gemma(Path(name))
        encoder = TextEncoder(name)
        pipe = LTX2Pipeline.__new__(LTX2Pipeline)
        pipe.tokenizer = AutoTokenizer.from_pretrained(name)
        pipe.text_encoder = Gemma3ForConditionalGeneration.from_pretrained(name, dtype=torch.float32).eval()
        text, found = " ".join(SENTENCES), {}
        prompt = next(text[:end] for end in range(len(text)) if encoder.ids(text[:end]).shape[1] == PROMPT_TOKENS)

        def ours():
            found["ours"] = encoder.states(encoder.ids(prompt))

        def peer():
            found["peer"], found["mask"] = pipe._get_gemma_prompt_embeds(prompt, device=torch.device("cpu"))

        row = compared("ltx2_text_encode", *paired(7, lambda: seconds(ours), lambda: seconds(peer)), "s", "<=", 0.25)
        check_same(found["ours"], found["peer"][:, found["mask"][0].bool()], "text states")
    return row
