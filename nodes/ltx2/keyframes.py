"""Pictures and clips that a video starts from, passes or ends with."""

import math
from collections import deque
from dataclasses import dataclass

import av
import torch
from comfy_api.latest import Input, io

from ..checks import check_number, check_numbers, said
from ..errors import ClipTooShort, NotOffered, VideoEmpty
from ..host import progress
from ..pictures import check_image
from ..video.source import at_rate, open_end, shaped
from .guidance import CATEGORY
from .shot import SCALE_T, Keyframe, whole

KEYFRAMES = io.Custom("LTX2_KEYFRAMES")
MOST_FRAMES = 1009
LONGEST_OVERLAP = 121


class LTX2Keyframe(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9LTX2Keyframe",
            display_name="LTX-2 Keyframe",
            category=CATEGORY,
            description="A picture that the video shows at a moment of your choice. Several follow each other.",
            search_aliases=["add guide", "image to video", "first last frame", "interpolate", "middle frame"],
            inputs=[
                io.Image.Input(
                    "image", tooltip="One picture. Cropped to the video's shape; transparency becomes black."
                ),
                io.Int.Input(
                    "frame",
                    default=0,
                    min=-MOST_FRAMES,
                    max=MOST_FRAMES - 1,
                    tooltip="Where it is seen: 0 is the first frame, -1 the last, -2 the one before.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="1 keeps the picture as it is; less lets the model change it; 0 leaves it out.",
                ),
                KEYFRAMES.Input(
                    "keyframes", optional=True, tooltip="From another LTX-2 Keyframe or LTX-2 Extend, to have both."
                ),
            ],
            outputs=[
                KEYFRAMES.Output("keyframes", tooltip="All of them. To LTX-2 Sampler or a further LTX-2 Keyframe.")
            ],
        )

    @classmethod
    def execute(cls, image: Input.Image, frame: int, strength: float, keyframes=()) -> io.NodeOutput:
        check_numbers(cls, locals())
        check_image(image)
        return io.NodeOutput((*keyframes, Keyframe(image, frame, strength)))


class LTX2Extend(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9LTX2Extend",
            display_name="LTX-2 Extend",
            category=CATEGORY,
            description="Goes on from a video: its last frames become the first ones of the new video, so that the "
            "movement continues. Video Join puts both together.",
            search_aliases=["video to video", "continue", "extend video", "v2v", "last frame"],
            inputs=[
                io.Video.Input("video", tooltip="Its last frames count, cropped to the new video's shape."),
                io.Int.Input(
                    "overlap",
                    default=17,
                    min=1,
                    max=LONGEST_OVERLAP,
                    step=SCALE_T,
                    tooltip="How many frames both have in common, at the new video's rate: 1, 9, 17, ... (8k + 1). "
                    "More of them continue the movement better; the sampler's frames counts them too.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    tooltip="1 keeps these frames as they are; less lets the model change them.",
                ),
                KEYFRAMES.Input("keyframes", optional=True, tooltip="From LTX-2 Keyframe, to have both."),
            ],
            outputs=[
                KEYFRAMES.Output("keyframes", tooltip="To LTX-2 Sampler, or to LTX-2 Keyframe for pictures later on.")
            ],
        )

    @classmethod
    def validate_inputs(cls, overlap=None):
        return said(check_overlap, overlap)

    @classmethod
    def execute(cls, video: Input.Video, overlap: int, strength: float, keyframes=()) -> io.NodeOutput:
        check_numbers(cls, locals())
        check_overlap(overlap)
        return io.NodeOutput((*keyframes, Ending(video, overlap, strength)))


def check_overlap(overlap: int | None):
    """Raise OutOfRange or NotOffered for an overlap of no whole latents; None stands for a linked one."""
    if overlap is None:
        return
    check_number("overlap", overlap, 1, LONGEST_OVERLAP)
    if (overlap - 1) % SCALE_T:
        nearest = round((overlap - 1) / SCALE_T) * SCALE_T + 1
        allowed = "1, 9, 17, ... (8k + 1)"
        raise NotOffered(family="LTX-2", name="overlap", given=overlap, allowed=allowed, nearest=nearest)


@dataclass(frozen=True)
class Ending:
    """The last frames of a VIDEO, read when the new video's rate is known."""

    video: Input.Video
    count: int
    strength: float

    def at(self, fps: int) -> Keyframe:
        """Raises ClipTooShort, VideoUnreadable and VideoEmpty."""
        # A container's clock is not exact. A picture that stands still for long begins before that: then all is read.
        found = self.last((self.count + 1) / fps, fps)
        if len(found) < self.count:
            found = self.last(math.inf, fps)
        if not found:
            raise VideoEmpty(reason="none lies inside its trim")
        if len(found) < self.count:
            raise ClipTooShort(given=self.count, frames=len(found), allowed=whole(len(found)))
        pictures = torch.stack([torch.from_numpy(it.to_ndarray(format="rgb24")) for it in found])
        return Keyframe(pictures, 0, self.strength)

    def last(self, seconds: float, fps: int) -> deque[av.VideoFrame]:
        """The last frames, upright, with square pixels, of so many seconds."""
        source = open_end(self.video, seconds, progress.stop_if_interrupted)
        upright = shaped(at_rate(source.frames(), source.steady_rate, fps, hold=False), "rgb24")
        return deque((it.reformat(width=round(it.width * source.upright_aspect)) for it in upright), self.count)
