"""Denoising LTX-2 with diffusers' own pipelines, on components that the host loads."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod

import torch

from ..checks import check_finite
from ..errors import BadSteps
from ..host import memory
from . import sound
from .attention import kept_bytes, prepared
from .checkpoint import LTX2
from .guidance import Guidance
from .shot import SCALE_T, Keyframe, Shot
from .text_encoder import MAX_TOKENS, Conditioning

IMAGE_CRF = 33  # Lightricks trained on images that went through H.264 at this quality (ltx-pipelines, media_io)
DISTILLED_STEPS = 8
# Lightricks/LTX-2, scheduler/scheduler_config.json.
DEV_SCHEDULE = {
    "use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024,
    "max_image_seq_len": 4096, "shift_terminal": 0.1,
}  # fmt: skip
# Steps and guidance of the dev schedule: LTX-2's as diffusers runs it, LTX-2.3's as Lightricks does (ltx-pipelines,
# constants.py, LTX_2_3_PARAMS).
DEV = {"2.0": (40, 4.0), "2.3": (30, 3.0)}
# The second stage's noise levels: Lightricks' STAGE_2_DISTILLED_SIGMA_VALUES, and those of ComfyUI's LTX-2.3 templates.
REFINING = {"2.0": (0.909375, 0.725, 0.421875), "2.3": (0.85, 0.725, 0.4219)}


@dataclass(frozen=True)
class Schedule:
    """One run's numbers. sigmas None: the dev schedule's own; noise: how much of it given latents get first.

    guidance: in place of guidance_scale, where there is one.
    """

    steps: int
    guidance_scale: float
    sigmas: tuple[float, ...] | None
    noise: float = 1.0
    guidance: Guidance | None = None

    @property
    def batch(self) -> int:
        """With guidance the negative prompt is computed beside the other."""
        it = self.guidance
        return 2 if (max(it.guidance_scale, it.audio_guidance_scale) if it else self.guidance_scale) > 1 else 1

    @property
    def texts(self) -> int:
        """How many texts a run keeps what it has computed of: diffusers' further passes take one anew."""
        return self.batch + (1 if self.batch == 2 and self.guidance and self.guidance.more_passes else 0)


def schedule(
    name: str, steps: int, guidance_scale: float, version: str = "2.0", guidance: Guidance | None = None
) -> Schedule:
    """The schedule of that name; 0 means its own number. Raises BadSteps for a distilled one of other steps."""
    if name == "dev":
        own_steps, own_guidance = DEV[version]
        return Schedule(steps or own_steps, guidance_scale or own_guidance, None, guidance=guidance)
    if steps not in (0, DISTILLED_STEPS):
        raise BadSteps(given=steps, allowed=DISTILLED_STEPS)
    from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES

    return Schedule(DISTILLED_STEPS, guidance_scale or 1.0, tuple(DISTILLED_SIGMA_VALUES), guidance=guidance)


def refining(version: str = "2.0") -> Schedule:
    """The second stage: three steps without guidance, from where the first sigma has its noise."""
    sigmas = REFINING[version]
    return Schedule(len(sigmas), 1.0, sigmas, noise=sigmas[0])


@cache
def pipelines() -> dict[str, type]:
    """diffusers' pipelines, which compute where the host has put the components and hand each step's results out."""
    from diffusers import LTX2ConditionPipeline, LTX2ImageToVideoPipeline, LTX2Pipeline

    class OnHost:
        sound_noise, exact_frames = 1.0, None

        @property
        def _execution_device(self):
            return self.device_of_host

        def prepare_audio_latents(self, *args, noise_scale=0.0, **more):
            return super().prepare_audio_latents(*args, noise_scale=noise_scale * self.sound_noise, **more)

        def _prepare_keyframe_coords(self, *, pixel_frame_idx, **more):
            # diffusers counts in latents: the last image would be seen seven frames before the end.
            index = next(self.exact_frames) if self.exact_frames else pixel_frame_idx
            return super()._prepare_keyframe_coords(pixel_frame_idx=index, **more)

        _callback_tensor_inputs = [*LTX2Pipeline._callback_tensor_inputs, "audio_latents", "noise_pred_video"]

    stock = {"text": LTX2Pipeline, "image": LTX2ImageToVideoPipeline, "condition": LTX2ConditionPipeline}
    return {name: type(kind.__name__, (OnHost, kind), {}) for name, kind in stock.items()}


def padded(states: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Real tokens, padded on the left to the 1024 of the connectors' registers; with the mask of the real ones."""
    missing = MAX_TOKENS - states.shape[1]
    mask = torch.ones(1, states.shape[1], dtype=torch.int64)
    return torch.nn.functional.pad(states.to(dtype), (0, 0, missing, 0)), torch.nn.functional.pad(mask, (missing, 0))


def activation_bytes(model: LTX2, shot: Shot, plan: Schedule) -> int:
    """The most that a step holds beside the weights.

    Live tensors in bf16: 14 values per token and width, 15 where an image gives each token a timestep of its own. The
    connectors hold the padded states three times. Before the steps the VAE encodes the pictures, a clip at once: 45
    values per pixel of a frame. Each is asked for with a tenth to spare.
    """
    count, *size = shot.latent_size
    tokens = (count + sum(it.frame > 0 for it in shot.shown)) * prod(size)
    it = model.transformer.module.config
    values = 16.5 * tokens * it.num_attention_heads * it.attention_head_dim
    text = MAX_TOKENS * model.text_width * 3
    encoding = 50 * prod(shot.grid_size) * max((len(it.pictures) for it in shot.shown), default=0)
    return model.dtype.itemsize * max(plan.batch * (values + text), encoding)


def denoise(
    model: LTX2,
    conditioning: Conditioning,
    shot: Shot,
    plan: Schedule,
    seed: int,
    step: Callable[[int, torch.Tensor], None],
    latents: tuple[torch.Tensor, torch.Tensor] | None = None,
    *,
    stock: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the schedule. Returns video [1, 128, F, h, w] and audio [1, 8, L, 16], normalized, float32, on the CPU.

    latents: normalized ones to start from, with plan.noise of noise. step(index, clean) is called after each step with
    the clean video so far. stock: as diffusers has it where Lightricks and ComfyUI do otherwise, the gates between
    picture and sound and the places of keyframes; and each token modulated for itself, which differs by rounding.
    Raises NotEnoughMemory, NotFinite and what Shot.shown raises; ComfyUI's interrupt passes through.
    """
    parts = [model.connectors, model.transformer]
    if shown := shot.shown:
        parts.append(model.vae)
    audio = sound.encoded(model, shot) if shot.sound_kept and latents is None else None
    needed = activation_bytes(model, shot, plan)
    keep = kept_bytes(model.transformer.module, MAX_TOKENS, plan.texts, model.dtype.itemsize)
    device = model.transformer.patcher.load_device
    room = memory.room(parts) > needed + keep
    memory.load(parts, needed + (keep if room else 0), f"LTX-2 at {shot.width}x{shot.height}, {shot.frames} frames")

    kind = "text" if not shown else "image" if latents is None and plain_image(shown) else "condition"
    pipe = pipeline(model, kind, plan, device)
    pipe.sound_noise = pipe.scheduler.sound = 1 - shot.sound_kept
    pipe.exact_frames = None if stock else iter([it.frame for it in shown if it.frame])
    (width, height), size = shot.grid_size, shot.latent_size
    guidance = guidance_off(plan.guidance_scale)
    if plan.guidance:
        guidance |= plan.guidance.inputs(model.version, model.transformer.module.config.num_layers)
    inputs = {
        **guidance,
        **prompts(conditioning, plan, model.dtype, device),
        **conditions(pipe, kind, shot),
        "width": width, "height": height, "num_frames": shot.grid_frames, "frame_rate": float(shot.fps),
        "num_inference_steps": plan.steps, "sigmas": list(plan.sigmas) if plan.sigmas else None,
        "generator": torch.Generator("cpu").manual_seed(seed), "output_type": "latent",
        "callback_on_step_end_tensor_inputs": ["latents", "audio_latents", "noise_pred_video"],
    }  # fmt: skip
    if latents is not None:
        video, audio = latents
        inputs["latents"] = denormalized(pipe.vae, video.to(device))
        inputs["noise_scale"] = plan.noise
        audio = denormalized_audio(pipe.audio_vae, audio.to(device))
    if audio is not None:
        inputs["audio_latents"] = audio
    last = {}

    def after(pipe, index, timestep, found):
        video = unpacked(found["latents"], size)
        velocity = found["noise_pred_video"]
        velocity = unpacked(velocity, size) if velocity.ndim == 3 else velocity
        clean = video.clone()
        # An image's own frame is clean already, and has no velocity.
        clean[:, :, size[0] - velocity.shape[2] :] -= pipe.scheduler.sigmas[index + 1] * velocity
        last.update(video=video, audio=found["audio_latents"])
        step(index, clean)
        return {}

    with prepared(model.transformer.module, keep=room, sound=pipe.sound_noise, stock=stock):
        pipe(**inputs, callback_on_step_end=after)
    check_finite(last["video"], "the latents of the picture")
    check_finite(last["audio"], "the latents of the sound")
    return last["video"].cpu(), unpacked_audio(last["audio"]).cpu()


def plain_image(shown: list[Keyframe]) -> bool:
    """Whether one picture at full strength is the first frame, and nothing else is given."""
    [first, *others] = shown
    return not others and first.frame == 0 and first.strength == 1 and len(first.pictures) == 1


def pipeline(model: LTX2, kind: str, plan: Schedule, device: torch.device):
    # The distilled numbers are the noise levels themselves: the dev schedule's shift would bend them.
    config = {} if plan.sigmas else dict(DEV_SCHEDULE)
    if plan.steps == 1:
        # One step is first and last, and stretching it to a last value divides by zero.
        config["shift_terminal"] = None
    scheduler = sound.scheduler()(**config)
    pipe = pipelines()[kind](
        scheduler=scheduler, vae=model.vae.module, audio_vae=model.audio_vae.module, text_encoder=None, tokenizer=None,
        connectors=model.connectors.module, transformer=model.transformer.module, vocoder=model.vocoder.module,
    )  # fmt: skip
    pipe.device_of_host = device
    pipe.set_progress_bar_config(disable=True)
    return pipe


def guidance_off(guidance_scale: float) -> dict:
    """Only classifier-free guidance: every other one of diffusers is on unless it is told not to."""
    return {
        "guidance_scale": guidance_scale, "audio_guidance_scale": guidance_scale,
        "stg_scale": 0.0, "audio_stg_scale": 0.0, "modality_scale": 1.0, "audio_modality_scale": 1.0,
        "guidance_rescale": 0.0, "audio_guidance_rescale": 0.0, "spatio_temporal_guidance_blocks": None,
        "use_cross_timestep": False,
    }  # fmt: skip


def prompts(conditioning: Conditioning, plan: Schedule, dtype: torch.dtype, device: torch.device) -> dict:
    kinds = {"": conditioning.positive}
    if plan.batch == 2:
        kinds["negative_"] = conditioning.negative
    found = {}
    for kind, states in kinds.items():
        embeds, mask = padded(states.to(device), dtype)
        found |= {f"{kind}prompt_embeds": embeds, f"{kind}prompt_attention_mask": mask.to(device)}
    return found


def conditions(pipe, kind: str, shot: Shot) -> dict:
    if kind == "text":
        return {}
    pictures = {it.frame: list(shot.images(it)) for it in shot.shown}
    if kind == "image":
        return known(pipe.__call__, image=pictures[0][0], image_crf=IMAGE_CRF)
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    found = []
    for it in shot.shown:
        # The latent that the frame is in: the first holds one frame.
        frames = pictures[it.frame] if len(it.pictures) > 1 else pictures[it.frame][0]
        given = {"frames": frames, "index": -(-it.frame // SCALE_T), "strength": it.strength}
        found.append(LTX2VideoCondition(**known(LTX2VideoCondition, **given, crf=IMAGE_CRF)))
    return {"conditions": found}


def known(taker: Callable, **given) -> dict:
    """What this diffusers takes of what is given: before 0.40 it did not recompress images."""
    return {name: value for name, value in given.items() if name in inspect.signature(taker).parameters}


def unpacked(tokens: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    """[1, tokens, 128] -> [1, 128, F, h, w]; tokens of appended images are left out."""
    frames, height, width = size
    return tokens[:, : frames * height * width].reshape(1, frames, height, width, -1).permute(0, 4, 1, 2, 3)


def unpacked_audio(tokens: torch.Tensor) -> torch.Tensor:
    """[1, L, 8 x 16] -> [1, 8, L, 16]."""
    return tokens.unflatten(2, (8, 16)).transpose(1, 2)


def statistics(vae, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """mean and std of a VAE's latents, on the device and in the dtype of `like`."""
    return vae.latents_mean.to(like), vae.latents_std.to(like)


def denormalized(vae, video: torch.Tensor) -> torch.Tensor:
    """[1, 128, F, h, w] as the decoder takes it (diffusers, LTX2Pipeline._denormalize_latents)."""
    mean, std = (it.view(1, -1, 1, 1, 1) for it in statistics(vae, video))
    return video * std / vae.config.scaling_factor + mean


def normalized(vae, video: torch.Tensor) -> torch.Tensor:
    """The inverse of denormalized()."""
    mean, std = (it.view(1, -1, 1, 1, 1) for it in statistics(vae, video))
    return (video - mean) * vae.config.scaling_factor / std


def denormalized_audio(vae, audio: torch.Tensor) -> torch.Tensor:
    """[1, 8, L, 16] as the decoder takes it. The statistics are those of the packed 8 x 16 values of a moment."""
    mean, std = statistics(vae, audio)
    return unpacked_audio(audio.transpose(1, 2).flatten(2, 3) * std + mean)
