"""The LTX-2 nodes, as the editor shows them."""

from comfy_api.latest import io

from ..checks import check_numbers, check_prompt, said
from ..errors import BadSteps
from ..host import latents as layout
from ..host import memory, paths, progress
from ..inputs import likely, seed_input
from ..pictures import check_image
from ..settings import local
from .guidance import CATEGORY, GUIDANCE, LTX2Guidance
from .keyframes import KEYFRAMES, LTX2Extend, LTX2Keyframe
from .model import LTX2Model, checkpoint_path, text_encoder_path, text_encoders, upscaler_path
from .shot import Keyframe

# Read at import, so that a bad setting takes out this room alone and says so at start.
local()

OURS = "xavi9_ltx2"  # the key of a LATENT under which what was asked for travels
LATENTS = "LTXAV"  # what the host calls their format
MODEL = io.Custom("LTX2_MODEL")
CONDITIONING = io.Custom("LTX2_CONDITIONING")


class LTX2Loader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9LTX2Loader",
            display_name="LTX-2 Loader",
            category=CATEGORY,
            description="Opens LTX-2 or LTX-2.3: a checkpoint with picture, sound and decoders, and its text encoder "
            "Gemma 3. Weights stay in the file until they are needed; FP8 stays FP8.",
            search_aliases=["ltxv", "ltx-2", "ltx-2.3", "lightricks", "load checkpoint", "gemma"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=(checkpoints := paths.checkpoint_names()),
                    default=likely(checkpoints, "ltx-2-19b-distilled", "ltx-2"),
                    tooltip="ltx-2-19b-distilled-fp8.safetensors (fast) or ltx-2-19b-dev-fp8.safetensors, or those of "
                    "LTX-2.3 (ltx-2.3-22b-...), from ComfyUI's checkpoints folder; or a folder in diffusers.",
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=(encoders := text_encoders()),
                    default=likely(encoders, "gemma"),
                    tooltip="Gemma 3 12B, from the text_encoders folder: one .safetensors for ComfyUI, or a Hugging "
                    "Face folder.",
                ),
                io.Combo.Input(
                    "weights",
                    options=["auto", "fp8", "bf16"],
                    default="auto",
                    tooltip="auto: as in the file. fp8: also make FP8 of a bf16 file, which halves its memory. bf16: "
                    "multiply in bf16 where the GPU would in FP8, slower and slightly finer.",
                ),
            ],
            outputs=[MODEL.Output("model", tooltip="For every other LTX-2 node.")],
        )

    @classmethod
    def validate_inputs(cls, checkpoint=None, text_encoder=None):
        for path, name in ((checkpoint_path, checkpoint), (text_encoder_path, text_encoder)):
            if name is not None and (answer := said(path, name)) is not True:
                return answer
        return True

    @classmethod
    def fingerprint_inputs(cls, checkpoint, text_encoder, weights):
        return memory.identity(checkpoint_path(checkpoint), text_encoder_path(text_encoder))

    @classmethod
    def execute(cls, checkpoint: str, text_encoder: str, weights: str) -> io.NodeOutput:
        handle = LTX2Model(checkpoint_path(checkpoint), text_encoder_path(text_encoder), weights)
        handle.model  # opened now, so that a wrong file is named on this node
        return io.NodeOutput(handle)


class LTX2LoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9LTX2LoRA",
            display_name="LTX-2 LoRA",
            category=CATEGORY,
            description="Puts a LoRA on LTX-2, whatever its trainer calls the layers. Several can follow each other.",
            search_aliases=["lora", "distilled lora", "camera lora"],
            inputs=[
                MODEL.Input("model", tooltip="From LTX-2 Loader, or from another LTX-2 LoRA."),
                io.Combo.Input(
                    "lora", options=paths.model_names("loras"), tooltip="A file in ComfyUI's loras folder."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="1 is as trained, 0 is off, negative turns it around.",
                ),
            ],
            outputs=[
                MODEL.Output("model", tooltip="The model with this LoRA on. To LTX-2 Sampler.")
            ],
        )

    @classmethod
    def validate_inputs(cls, lora=None):
        return True if lora is None else said(paths.model_path, "loras", lora, "ltx2")

    @classmethod
    def fingerprint_inputs(cls, lora, **others):
        return memory.identity(paths.model_path("loras", lora, "ltx2"))

    @classmethod
    def execute(cls, model: LTX2Model, lora: str, strength: float) -> io.NodeOutput:
        return io.NodeOutput(model.with_lora(paths.model_path("loras", lora, "ltx2"), strength) if strength else model)


class LTX2TextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9LTX2TextEncode",
            display_name="LTX-2 Text Encode",
            category=CATEGORY,
            description="Reads the prompts with Gemma 3. A run where only the seed changed does not load it again.",
            search_aliases=["prompt", "clip text encode", "gemma"],
            inputs=[
                MODEL.Input("model", tooltip="From LTX-2 Loader. LoRAs do not change the text."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What is seen and heard, in order, as in a script. Up to 1024 tokens, about 700 words.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    default="",
                    tooltip="What to avoid. Counts with guidance above 1 only, as the dev schedule has it.",
                ),
            ],
            outputs=[CONDITIONING.Output("conditioning", tooltip="Both prompts, encoded.")],
        )

    @classmethod
    def validate_inputs(cls, prompt=None):
        return said(check_prompt, prompt)

    @classmethod
    def execute(cls, model: LTX2Model, prompt: str, negative_prompt: str = "") -> io.NodeOutput:
        from .text_encoder import encode

        check_prompt(prompt)
        opened = model.model
        key = (memory.identity(model.text_encoder), prompt, negative_prompt)
        # The host's default cache runs expanded nodes again; the text is read once all the same.
        if opened.conditioning is None or opened.conditioning[0] != key:
            opened.conditioning = (key, encode(model.text_encoder, prompt, negative_prompt, opened.text_width))
        return io.NodeOutput(opened.conditioning[1])


def check_steps(schedule: str | None, steps: int | None):
    if schedule == "distilled" and steps not in (None, 0, 8):
        raise BadSteps(given=steps, allowed=8)


class LTX2Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9LTX2Sampler",
            display_name="LTX-2 Sampler",
            category=CATEGORY,
            description="Makes picture and sound together, from the text alone, with images at any frame, on from a "
            "clip, or for a given sound.",
            search_aliases=["ksampler", "text to video", "image to video", "t2v", "i2v", "first last frame"],
            inputs=[
                MODEL.Input("model", tooltip="From LTX-2 Loader or LTX-2 LoRA."),
                CONDITIONING.Input("conditioning", tooltip="From LTX-2 Text Encode."),
                io.Int.Input(
                    "width",
                    default=768,
                    min=32,
                    max=4096,
                    step=2,
                    tooltip="Pixels. Any number: the model works in steps of 32, and what is more is cropped off.",
                ),
                io.Int.Input("height", default=512, min=32, max=4096, step=2, tooltip="Pixels, as for width."),
                io.Int.Input(
                    "frames",
                    default=121,
                    min=1,
                    max=1009,
                    tooltip="How many pictures; divided by fps it is the length. LTX-2 was trained for up to 20 "
                    "seconds. It works in 8k + 1; what is more is trimmed, in picture and sound.",
                ),
                io.Int.Input("fps", default=25, min=8, max=60, tooltip="Frames per second: 24, 25 or 50 suit LTX-2."),
                io.Combo.Input(
                    "schedule",
                    options=["distilled", "dev"],
                    default="distilled",
                    tooltip="The kind of your checkpoint. distilled: 8 steps without guidance. dev: 40 steps with "
                    "guidance 4 (LTX-2.3: 30 with 3), or a distilled LoRA with the distilled schedule.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=200,
                    tooltip="0 is the schedule's own: 8 distilled; dev 40, or 30 with LTX-2.3.",
                ),
                io.Float.Input(
                    "guidance_scale",
                    default=0.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How closely to follow the prompt. 0 is the schedule's own: 1 (off) distilled; dev 4, or "
                    "3 with LTX-2.3. Above 1 each step takes twice as long.",
                ),
                seed_input("The same seed and inputs give the same video, bit for bit, on the same machine."),
                io.Image.Input(
                    "first_image",
                    optional=True,
                    tooltip="The video starts with it. Cropped to the video's shape; transparency becomes black.",
                ),
                io.Image.Input("last_image", optional=True, tooltip="The video ends with it."),
                io.Float.Input(
                    "image_strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="1 keeps the images as they are; less lets the model change them.",
                ),
                GUIDANCE.Input(
                    "guidance",
                    optional=True,
                    tooltip="From LTX-2 Guidance, for the dev schedule. guidance_scale counts no more then.",
                ),
                KEYFRAMES.Input(
                    "keyframes", optional=True, tooltip="From LTX-2 Keyframe or LTX-2 Extend: more pictures, or a clip."
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The picture is made to fit this sound, which the video keeps. It starts with the video; "
                    "what is longer is cut, what is shorter is followed by silence.",
                ),
                io.Float.Input(
                    "audio_strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="1 keeps the audio as it is; less lets the model change it; 0 leaves it out.",
                ),
            ],
            outputs=[
                io.Latent.Output("latents", tooltip="Picture and sound, in ComfyUI's own layout. To LTX-2 Decode.")
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, schedule=None, steps=None):
        return said(check_steps, schedule, steps)

    @classmethod
    def execute(
        cls, model: LTX2Model, conditioning, width: int, height: int, frames: int, fps: int, schedule: str, steps: int,
        guidance_scale: float, seed: int, first_image=None, last_image=None, image_strength: float = 1.0, guidance=None,
        keyframes=(), audio=None, audio_strength: float = 1.0,
    ) -> io.NodeOutput:  # fmt: skip
        from . import sampling, sound

        check_numbers(cls, locals())
        check_steps(schedule, steps)
        given = [Keyframe(it, at, image_strength) for it, at in ((first_image, 0), (last_image, -1)) if it is not None]
        for it in given:
            check_image(it.pictures)
        if audio is not None:
            sound.check_heard(audio)
        given += [it.at(fps) for it in keyframes]
        shot = sampling.Shot(width, height, frames, fps, tuple(given), audio, audio_strength)
        opened = model.patched()
        plan = sampling.schedule(schedule, steps, guidance_scale, opened.version, guidance)
        notes = []
        if opened.distilled != (schedule == "distilled") and not model.loras:
            kind = "distilled" if opened.distilled else "dev"
            notes.append(f"The checkpoint is {kind}, the schedule is {schedule}: expect poor results")
        if guidance and schedule == "distilled":
            notes.append("LTX-2 Guidance is for the dev schedule: distilled models need none")
        if notes:
            progress.show_text(cls.hidden, "\n".join(notes))
        made = sampling.denoise(opened, conditioning, shot, plan, seed, layout.step_callback(plan.steps, LATENTS))
        return io.NodeOutput({"samples": layout.joined(*made), OURS: shot})


class LTX2Upscale(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9LTX2Upscale",
            display_name="LTX-2 Upscale",
            category=CATEGORY,
            description="The official second stage: twice the width and height, then three refining steps. Images that "
            "the first stage started from are put in again at the new size.",
            search_aliases=["latent upscale", "two stage", "1080p", "spatial upscaler"],
            inputs=[
                MODEL.Input("model", tooltip="The distilled model, or dev with the distilled LoRA."),
                CONDITIONING.Input("conditioning", tooltip="The same as for the sampler."),
                io.Latent.Input("latents", tooltip="From LTX-2 Sampler: 960x540 becomes 1920x1080."),
                io.Combo.Input(
                    "upscaler",
                    options=paths.model_names("latent_upscale_models"),
                    tooltip="ltx-2-spatial-upscaler-x2-1.0.safetensors, or with LTX-2.3 "
                    "ltx-2.3-spatial-upscaler-x2-1.1.safetensors, in the latent_upscale_models folder.",
                ),
                seed_input("Of the noise that the refining steps start from."),
            ],
            outputs=[io.Latent.Output("latents", tooltip="To LTX-2 Decode.")],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, upscaler=None):
        return True if upscaler is None else said(upscaler_path, upscaler)

    @classmethod
    def fingerprint_inputs(cls, upscaler, **others):
        return memory.identity(upscaler_path(upscaler))

    @classmethod
    def execute(cls, model: LTX2Model, conditioning, latents: dict, upscaler: str, seed: int) -> io.NodeOutput:
        from . import sampling, upscale

        samples, shot = asked(latents)
        path = upscaler_path(upscaler)
        opened = model.patched()
        step = layout.step_callback(sampling.refining(opened.version).steps, LATENTS)
        if upscale.version_of(path) != opened.version:
            text = f"The upscaler is not LTX-{opened.version}'s own: expect poor results"
            progress.show_text(cls.hidden, text)
        *made, larger = upscale.upscale(opened, conditioning, shot, samples, path, seed, step)
        return io.NodeOutput({"samples": layout.joined(*made), OURS: larger})


def asked(latents: dict):
    """Video and audio of a LATENT, and the Shot that they show: ours, or what core's own latents tell."""
    from .decode import check_latents, shot_of, shows

    samples = layout.parted(latents["samples"])
    check_latents(*samples)
    shot = latents.get(OURS)
    # A node of ComfyUI's in between, such as an upscaler, may have made another size of them.
    return samples, shot if shot and shows(shot, samples[0]) else shot_of(*samples)


class LTX2Decode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9LTX2Decode",
            display_name="LTX-2 Decode",
            category=CATEGORY,
            description="Makes a video with sound of LTX-2's latents. Frames are decoded while they are saved, a few "
            "at a time: a long 1080p clip needs no more memory than a short one.",
            search_aliases=["vae decode", "audio vae", "vocoder"],
            inputs=[
                MODEL.Input("model", tooltip="From LTX-2 Loader."),
                io.Latent.Input("latents", tooltip="From LTX-2 Sampler or Upscale, or ComfyUI's own LTX-2 nodes."),
                io.Combo.Input(
                    "tiling",
                    options=["auto", "on", "off"],
                    default="auto",
                    tooltip="Decode each frame in tiles. auto: where a whole frame would not fit. In time there are "
                    "never seams.",
                ),
            ],
            outputs=[io.Video.Output("video", tooltip="Picture and sound. To Video Save.")],
        )

    @classmethod
    def execute(cls, model: LTX2Model, latents: dict, tiling: str) -> io.NodeOutput:
        from .decode import video_of

        samples, shot = asked(latents)
        return io.NodeOutput(video_of(model, samples, shot, tiling))


NODES = [
    LTX2Loader, LTX2LoRA, LTX2TextEncode, LTX2Guidance, LTX2Keyframe, LTX2Extend, LTX2Sampler, LTX2Upscale, LTX2Decode,
]  # fmt: skip
