"""Our sampler against stock diffusers on the same weights: bit for bit."""

from contextlib import contextmanager
from importlib.metadata import version

import numpy as np
import pytest
import torch
from parts import distance
from tiny.ltx2 import write_checkpoint
from tiny.stock import pipeline
from xavi9videos.nodes.errors import BadSteps, OutOfRange
from xavi9videos.nodes.ltx2 import attention, sampling
from xavi9videos.nodes.ltx2.checkpoint import LTX2
from xavi9videos.nodes.ltx2.guidance import Guidance
from xavi9videos.nodes.ltx2.shot import Keyframe
from xavi9videos.nodes.ltx2.text_encoder import Conditioning

TOKENS, SIZE, FRAMES, FPS, SEED = 21, (128, 96), 17, 24, 7
OFF = {
    "stg_scale": 0.0, "audio_stg_scale": 0.0, "modality_scale": 1.0, "audio_modality_scale": 1.0,
    "guidance_rescale": 0.0, "audio_guidance_rescale": 0.0, "use_cross_timestep": False,
    "spatio_temporal_guidance_blocks": None,
}  # fmt: skip
# Before 0.40 diffusers did not recompress images.
RECOMPRESSES = tuple(map(int, version("diffusers").split(".")[:2])) >= (0, 40)
CRF = {"crf": 33} if RECOMPRESSES else {}
DISTILLED = [1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875]


@pytest.fixture(scope="module", params=["2.0", "2.3"])
def checkpoint(tmp_path_factory, request):
    path = tmp_path_factory.mktemp("ltx2") / f"ltx-{request.param}-distilled-fp8.safetensors"
    write_checkpoint(path, version=request.param)
    return path


@pytest.fixture(scope="module")
def model(checkpoint):
    return LTX2(str(checkpoint))


@pytest.fixture(scope="module")
def conditioning(model):
    torch.manual_seed(3)
    return Conditioning(torch.randn(1, TOKENS, model.text_width), torch.randn(1, 5, model.text_width))


@pytest.fixture(scope="module")
def picture():
    rows, columns = torch.meshgrid(torch.linspace(0, 1, SIZE[1]), torch.linspace(0, 1, SIZE[0]), indexing="ij")
    return torch.stack([rows, columns, (rows * 9).sin() / 2 + 0.5], -1)[None]


def text(states):
    missing = 1024 - states.shape[1]
    mask = torch.cat([torch.zeros(1, missing), torch.ones(1, states.shape[1])], 1).long()
    return torch.cat([torch.zeros(1, missing, states.shape[2]), states], 1), mask


def stock(checkpoint, kind, conditioning, *, sigmas=None, steps=8, guidance=1.0, sound_guidance=None,
          prepare=lambda pipe: None, **inputs):  # fmt: skip
    """Normalized video and audio of diffusers' own pipeline, as its loop leaves them."""
    pipe = pipeline(checkpoint, kind, {} if sigmas else None, "2.3" if "2.3" in checkpoint.name else "2.0")
    prepare(pipe)
    sound_guidance = sound_guidance or guidance
    pipe._callback_tensor_inputs = [*pipe._callback_tensor_inputs, "audio_latents"]
    last = {}
    embeds, mask = text(conditioning.positive)
    if max(guidance, sound_guidance) > 1:
        negative, negative_mask = text(conditioning.negative)
        inputs |= {"negative_prompt_embeds": negative, "negative_prompt_attention_mask": negative_mask}
    inputs = {"width": SIZE[0], "height": SIZE[1], "num_frames": FRAMES, "frame_rate": float(FPS), **OFF, **inputs}
    with torch.inference_mode():
        pipe(
            prompt_embeds=embeds, prompt_attention_mask=mask, guidance_scale=guidance,
            audio_guidance_scale=sound_guidance,
            num_inference_steps=steps, sigmas=sigmas, generator=torch.Generator().manual_seed(SEED),
            output_type="latent", callback_on_step_end=lambda *it: last.update(it[-1]) or {},
            callback_on_step_end_tensor_inputs=["latents", "audio_latents"], **inputs,
        )  # fmt: skip
    count = 3 * (SIZE[0] // 32) * (SIZE[1] // 32)
    video = last["latents"][:, :count].reshape(1, 3, SIZE[1] // 32, SIZE[0] // 32, 128).permute(0, 4, 1, 2, 3)
    return video, last["audio_latents"].unflatten(2, (8, 16)).transpose(1, 2)


def image(picture):
    """A picture at the shot's size, as the pipelines take it."""
    [made] = sampling.Shot(*SIZE, FRAMES, FPS).images(Keyframe(picture))
    return made


def ours(model, conditioning, plan=None, stock=True, **shot):
    steps = []
    shot = sampling.Shot(*SIZE, FRAMES, FPS, **shot)
    plan = plan or sampling.schedule("distilled", 0, 0)
    with torch.inference_mode():
        found = sampling.denoise(
            model, conditioning, shot, plan, SEED, lambda index, clean: steps.append(clean), stock=stock
        )
    assert len(steps) == plan.steps
    assert torch.allclose(steps[-1].cpu(), found[0], atol=1e-5)
    return found


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_text_to_video_is_bit_for_bit_diffusers(model, checkpoint, conditioning):
    assert equal(ours(model, conditioning), stock(checkpoint, "LTX2Pipeline", conditioning, sigmas=DISTILLED))


def test_dev_schedule_with_guidance_is_bit_for_bit_diffusers(model, checkpoint, conditioning):
    plan = sampling.schedule("dev", 3, 0)
    assert plan.guidance_scale == 4
    expected = stock(checkpoint, "LTX2Pipeline", conditioning, steps=3, guidance=4.0)
    assert equal(ours(model, conditioning, plan), expected)


NUMBERS = {
    "guidance_scale": 3.0, "stg_scale": 1.0, "modality_scale": 3.0, "guidance_rescale": 0.7,
    "audio_guidance_scale": 7.0, "audio_stg_scale": 1.5, "audio_modality_scale": 2.0, "audio_guidance_rescale": 0.4,
}  # fmt: skip


def names(given):
    """diffusers' names as the node has them."""
    return {name.replace("guidance_rescale", "rescale"): value for name, value in given.items()}


def perturbable(pipe):
    """Stock diffusers with the attention that can pass over: 2.0's configuration has it off."""
    from diffusers.models.transformers.transformer_ltx2 import LTX2PerturbedAttnProcessor

    for block in pipe.transformer.transformer_blocks:
        block.perturbed_attn = True
        for attn in (block.attn1, block.audio_attn1):
            attn.set_processor(LTX2PerturbedAttnProcessor())


# All together, and each alone; beside the picture's own number a 0 for the sound would be the picture's in diffusers.
@pytest.mark.parametrize("given", [
    NUMBERS, {"stg_scale": 2.0, "audio_stg_scale": 1e-35}, {"modality_scale": 3.0}, {"audio_guidance_scale": 5.0},
    {"guidance_scale": 4.0, "guidance_rescale": 0.7, "audio_guidance_rescale": 1e-35},
])  # fmt: skip
def test_guidance_is_bit_for_bit_diffusers(model, checkpoint, conditioning, given):
    off = {name: 0.0 if "stg" in name or "rescale" in name else 1.0 for name in NUMBERS}
    plan = sampling.schedule("dev", 2, 0, guidance=Guidance(**names(off | given), stg_block=2))
    steps = {**off, **given, "spatio_temporal_guidance_blocks": [2]}
    scale = steps.pop("guidance_scale"), steps.pop("audio_guidance_scale")
    expected = stock(checkpoint, "LTX2Pipeline", conditioning, steps=2, guidance=scale[0], sound_guidance=scale[1],
                     prepare=perturbable, **steps)
    found = ours(model, conditioning, plan)
    assert equal(found, expected)
    plain = ours(model, conditioning, sampling.schedule("dev", 2, 1.0))
    assert not torch.equal(found[0], plain[0]) and not torch.equal(found[1], plain[1])


def test_a_run_keeps_as_many_texts_as_memory_was_asked_for(model, conditioning, monkeypatch):
    """diffusers takes the prompt out of the guided batch for further passes. Afterwards attention is as it was."""
    asked, runs, prepared = [], [], attention.prepared
    monkeypatch.setattr(sampling, "kept_bytes", lambda module, tokens, texts, size: asked.append(texts) or 0)

    @contextmanager
    def watched(*args, **more):
        with prepared(*args, **more) as run:
            yield run
            runs.append(sum(len(context) for context, _ in run.contexts))

    monkeypatch.setattr(sampling, "prepared", watched)
    for guidance in (None, Guidance(), Guidance(1.0, 1.0, 3.0, audio_guidance_scale=1.0)):
        ours(model, conditioning, sampling.schedule("dev", 1, 0, guidance=guidance))
    assert asked == runs == [2, 3, 1]
    assert not any(block.perturbed_attn for block in model.transformer.module.transformer_blocks)


def test_upstreams_numbers():
    """Lightricks' constants.py, and the second stage of ComfyUI's own LTX-2.3 templates."""
    assert [Guidance().inputs(it, 48)["spatio_temporal_guidance_blocks"] for it in ("2.0", "2.3")] == [[29], [28]]
    assert [sampling.schedule("dev", 0, 0, it).steps for it in ("2.0", "2.3")] == [40, 30]
    assert sampling.refining("2.0").sigmas == (0.909375, 0.725, 0.421875)
    assert sampling.refining("2.3").sigmas == (0.85, 0.725, 0.4219)


def test_guidance_of_the_sound_that_is_off_is_off(model, conditioning):
    """Its own 0 is 0, not the picture's value."""
    def sound(**given):
        off = {"guidance_scale": 1.0, "audio_guidance_scale": 1.0, "modality_scale": 1.0, "audio_modality_scale": 1.0}
        given = {"rescale": 0.0, "audio_rescale": 0.0, "stg_scale": 0.0, "audio_stg_scale": 0.0, **off, **given}
        plan = sampling.schedule("dev", 1, 0, guidance=Guidance(**given, stg_block=2))
        return ours(model, conditioning, plan)[1]

    assert torch.equal(sound(stg_scale=1.0), sound())
    assert not torch.equal(sound(stg_scale=1.0, audio_stg_scale=1.0), sound())
    assert torch.equal(sound(rescale=0.7, audio_guidance_scale=3.0), sound(audio_guidance_scale=3.0))


def test_a_block_that_is_not_there_is_refused(model, conditioning):
    plan = sampling.schedule("dev", 1, 0, guidance=Guidance(stg_block=4))
    with pytest.raises(OutOfRange, match="stg_block is 4; -1 to 3"):
        ours(model, conditioning, plan)


def test_first_image_is_bit_for_bit_diffusers(model, checkpoint, conditioning, picture):
    given = {"image": image(picture)} | ({"image_crf": 33} if RECOMPRESSES else {})
    expected = stock(checkpoint, "LTX2ImageToVideoPipeline", conditioning, sigmas=DISTILLED, **given)
    assert equal(ours(model, conditioning, keyframes=(Keyframe(picture),)), expected)
    lead = ours(model, conditioning, keyframes=(Keyframe(picture),), stock=False)
    assert not equal(lead, expected)


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_first_and_last_image_are_bit_for_bit_diffusers(model, checkpoint, conditioning, picture, strength):
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    last = picture.flip(1)
    both = [
        LTX2VideoCondition(frames=image(it), index=index, strength=strength, **CRF)
        for index, it in ((0, picture), (-1, last))
    ]
    expected = stock(checkpoint, "LTX2ConditionPipeline", conditioning, sigmas=DISTILLED, conditions=both)
    keyframes = Keyframe(picture, 0, strength), Keyframe(last, -1, strength)
    assert equal(ours(model, conditioning, keyframes=keyframes), expected)


def test_a_clip_and_keyframes_of_their_own_strength_are_bit_for_bit_diffusers(
    model, checkpoint, conditioning, picture
):
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    clip = torch.cat([picture.roll(4 * it, 2) for it in range(9)])
    frames = [image(it[None]) for it in clip]
    given = [
        LTX2VideoCondition(frames=frames, index=0, strength=0.9, **CRF),
        LTX2VideoCondition(frames=image(picture.flip(1)), index=2, strength=0.4, **CRF),
    ]
    expected = stock(checkpoint, "LTX2ConditionPipeline", conditioning, sigmas=DISTILLED, conditions=given)
    keyframes = Keyframe(clip, 0, 0.9), Keyframe(picture.flip(1), 12, 0.4), Keyframe(picture, 10, 0.0)
    assert equal(ours(model, conditioning, keyframes=keyframes), expected)


def lightricks(pipe, frame):
    """Where Lightricks does otherwise than stock diffusers: a keyframe stands at its own frame (keyframe_cond.py), and
    the gate of picture to sound takes the sound's noise level (transformer_args.py)."""
    def level(module, args, inputs):
        return (args[0].view(inputs["batch_size"], -1).amax(1),), inputs

    pipe.transformer.av_cross_attn_video_a2v_gate.register_forward_pre_hook(level, with_kwargs=True)
    # Before 0.40 diffusers puts a picture in the place of the latent that its frame is in.
    if own := getattr(pipe, "_prepare_keyframe_coords", None):
        def exact(**given):
            found = own(**given)
            found[:, 0, :, 0], found[:, 0, :, 1] = frame / FPS, (frame + 1) / FPS
            return found

        pipe._prepare_keyframe_coords = exact


@pytest.mark.parametrize("frame", [12, -1])
def test_a_keyframe_is_seen_at_its_own_frame(model, checkpoint, conditioning, picture, frame):
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    given = [LTX2VideoCondition(frames=image(picture), index=2, strength=1.0, **CRF)]
    expected = stock(checkpoint, "LTX2ConditionPipeline", conditioning, sigmas=DISTILLED, conditions=given,
                     prepare=lambda pipe: lightricks(pipe, frame % FRAMES))
    found = ours(model, conditioning, keyframes=(Keyframe(picture, frame),), stock=False)
    assert all(distance(a, b) < 1e-5 for a, b in zip(found, expected, strict=True))


def test_the_prompt_is_heard(model, conditioning):
    other = Conditioning(conditioning.positive.flip(1), conditioning.negative)
    here, there = ours(model, conditioning), ours(model, other)
    assert (here[0] - there[0]).norm() / here[0].norm() > 0.05


def test_the_first_image_is_the_first_frame(model, conditioning, picture):
    pixels = np.asarray(image(picture))
    if RECOMPRESSES:
        from diffusers.pipelines.ltx2.utils import apply_image_conditioning_crf

        pixels = apply_image_conditioning_crf(pixels, 33)
    pixels = torch.tensor(pixels).float()
    with torch.inference_mode():
        vae = model.vae.module
        latent = vae.encode((pixels / 127.5 - 1).permute(2, 0, 1)[None, :, None]).latent_dist.mode()
        mean, std = (it.float().view(1, -1, 1, 1, 1) for it in (vae.latents_mean, vae.latents_std))
    video, _ = ours(model, conditioning, keyframes=(Keyframe(picture),))
    assert torch.allclose(video[:, :, :1], (latent - mean) / std, atol=1e-4)


def test_what_is_cut_off_again_repeats_the_edge(picture):
    shot = sampling.Shot(SIZE[0] - 9, SIZE[1] - 5, FRAMES, FPS)
    [made] = shot.images(Keyframe(picture))
    pixels = np.asarray(made)
    assert pixels.shape == (SIZE[1], SIZE[0], 3)
    assert (pixels[:, shot.width :] == pixels[:, shot.width - 1 : shot.width]).all()
    assert (pixels[shot.height :] == pixels[shot.height - 1 : shot.height]).all()


def test_a_distilled_schedule_of_other_steps_is_refused():
    with pytest.raises(BadSteps, match="has 8 steps, and steps is 20"):
        sampling.schedule("distilled", 20, 0)


def test_attention_gets_no_mask_that_hides_nothing(model, conditioning, monkeypatch):
    """As in ComfyUI's own LTX-2: flash and sage attention take none."""
    masks, whole = [], attention.attention

    def recorded(*tensors, mask, **more):
        masks.append(mask)
        return whole(*tensors, mask=mask, **more)

    monkeypatch.setattr(attention, "attention", recorded)
    ours(model, conditioning, sampling.schedule("dev", 2, 1.0))
    assert len(masks) >= 2 * 4 * 6 and all(it is None for it in masks)


def test_where_memory_is_short_nothing_is_kept_and_nothing_changes(model, conditioning, monkeypatch):
    rich = ours(model, conditioning)
    monkeypatch.setattr(sampling, "kept_bytes", lambda *_: 1e15)
    assert equal(ours(model, conditioning), rich)


def test_the_attention_that_a_cpu_host_takes_by_default_is_within_rounding(model, conditioning, monkeypatch):
    from comfy.ldm.modules.attention import attention_sub_quad

    expected = ours(model, conditioning)
    monkeypatch.setattr(attention, "attention", attention_sub_quad)
    found = ours(model, conditioning)
    # Not equal, or the other attention was not called.
    assert not equal(found, expected)
    assert all((a - b).norm() / b.norm() < 1e-5 for a, b in zip(found, expected, strict=True))
