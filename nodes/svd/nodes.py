"""The SVD-XT nodes, as the editor shows them."""

from functools import partial

from comfy_api.latest import io

from ..checks import check_numbers, said
from ..errors import ImageMissing
from ..host import latents as layout
from ..host import memory, paths
from ..inputs import ABSENT, likely, seed_input
from ..pictures import check_image
from ..settings import local

# Read at import, so that a bad setting takes out this room alone and says so at start.
local()

CATEGORY = "Xavi9Videos/SVD-XT"
LATENTS = "SD15"  # what the host calls their format
MODEL = io.Custom("SVD_MODEL")


def open_model(path: str):
    # diffusers takes seconds to import, and nobody should wait for it at the start of ComfyUI.
    from .checkpoint import SVD

    return SVD(path)


def model_path(name: str | None) -> str:
    return paths.checkpoint_path(name, "svd")


def check_given(image):
    """Raise ImageMissing where no image is connected. None stands for a linked one."""
    if image is ABSENT:
        raise ImageMissing()


class SVDLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9SVDLoader",
            display_name="SVD-XT Loader",
            category=CATEGORY,
            description="Opens Stable Video Diffusion XT, from its one file or from a diffusers folder. Weights stay "
            "in the file until they are needed.",
            search_aliases=["stable video diffusion", "svd", "img2vid", "image only checkpoint loader"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=(checkpoints := paths.checkpoint_names()),
                    default=likely(checkpoints, "svd_xt", "img2vid-xt", "svd"),
                    tooltip="svd_xt.safetensors from ComfyUI's checkpoints folder, or "
                    "stable-video-diffusion-img2vid-xt in the diffusers folder, of which the fp16 files are taken.",
                ),
            ],
            outputs=[MODEL.Output("model", tooltip="To SVD-XT Image to Video.")],
        )

    @classmethod
    def validate_inputs(cls, model=None):
        return True if model is None else said(model_path, model)

    @classmethod
    def fingerprint_inputs(cls, model):
        return memory.identity(model_path(model))

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        path = model_path(model)
        handle = memory.Handle(memory.identity(path), partial(open_model, path))
        handle.model  # opened now, so that a wrong file is named on this node
        return io.NodeOutput(handle)


class SVDImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9SVDImageToVideo",
            display_name="SVD-XT Image to Video",
            category=CATEGORY,
            description="Sets a picture in motion, without a text and without sound. Frames are decoded while they are "
            "saved, a few at a time.",
            search_aliases=["stable video diffusion", "svd", "i2v", "img2vid conditioning"],
            inputs=[
                MODEL.Input("model", tooltip="From SVD-XT Loader."),
                io.Image.Input(
                    "image",
                    tooltip="The picture that the video starts from. Cropped to the video's shape; transparency "
                    "becomes black.",
                ),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=64,
                    max=4096,
                    step=2,
                    tooltip="Pixels. SVD-XT was trained at 1024x576; 576x1024 works too, other sizes less well. Any "
                    "number: the model works in steps of 8, and what is more is cropped off.",
                ),
                io.Int.Input("height", default=576, min=64, max=4096, step=2, tooltip="Pixels, as for width."),
                io.Int.Input(
                    "frames",
                    default=25,
                    min=1,
                    max=256,
                    tooltip="How many pictures: SVD-XT was trained for 25, SVD for 14.",
                ),
                io.Int.Input(
                    "fps",
                    default=7,
                    min=1,
                    max=60,
                    tooltip="Frames per second, of the video and told to the model: 5 to 30. More means smaller "
                    "steps of the motion.",
                ),
                io.Int.Input("steps", default=25, min=1, max=200, tooltip="More is finer and slower."),
                io.Int.Input(
                    "motion_bucket_id",
                    default=127,
                    min=1,
                    max=1023,
                    tooltip="How much moves: 1 hardly anything, 127 is usual, 255 a lot; Stability AI warns against "
                    "more.",
                ),
                io.Float.Input(
                    "noise_aug_strength",
                    default=0.02,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Noise put on the picture first: more lets the video depart from it, and move more.",
                ),
                io.Float.Input(
                    "min_guidance",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How closely the first frame follows the picture; it changes evenly up to the last one's.",
                ),
                io.Float.Input(
                    "max_guidance",
                    default=3.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="The same of the last frame. With 1 or less for both guidance is off, and a step takes "
                    "half as long.",
                ),
                seed_input("The same seed and inputs give the same video, bit for bit, on the same machine."),
                io.Int.Input(
                    "decode_chunk",
                    default=8,
                    min=1,
                    max=256,
                    tooltip="Frames that the decoder sees together. More is smoother in time and needs more memory. "
                    "Changing it alone does not sample again.",
                ),
            ],
            outputs=[io.Video.Output("video", tooltip="Without sound. To Video Save.")],
        )

    @classmethod
    def validate_inputs(cls, model=None, image=ABSENT):
        # The host says that a required input is missing; this says what for. A linked input arrives as None, one that
        # is absent not at all. model is named so that the answer has an input to stand on.
        return said(check_given, image)

    @classmethod
    def execute(
        cls, model, image, width: int, height: int, frames: int, fps: int, steps: int, motion_bucket_id: int,
        noise_aug_strength: float, min_guidance: float, max_guidance: float, seed: int, decode_chunk: int,
    ) -> io.NodeOutput:  # fmt: skip
        from . import decode, sampling

        check_numbers(cls, locals())
        check_image(image)
        guidance = (min_guidance, max_guidance)
        shot = sampling.Shot(image, width, height, frames, fps, motion_bucket_id, noise_aug_strength, guidance)
        latents = sampling.latents(model.model, shot, steps, seed, layout.step_callback(steps, LATENTS))
        return io.NodeOutput(decode.video_of(model, latents, shot, decode_chunk))


NODES = [SVDLoader, SVDImageToVideo]
