"""RGB tensors into the planes of an encoder's picture, on the device where they are: a sixth of the bytes to fetch."""

import av
import numpy as np
import torch
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from torch.nn import functional

# ITU-R BT.709-6, items 3.2 to 3.4: luma of R'G'B', the range of the colour differences, and 8-bit levels.
LUMA = (0.2126, 0.7152, 0.0722)
BLUE_RANGE, RED_RANGE = 1.8556, 1.5748
BLACK, WHITE_STEPS, NO_COLOUR, COLOUR_STEPS = 16, 219, 128, 224
BITS = {"yuv420p": 8, "yuv420p10le": 10}


def as_bt709(frame: av.VideoFrame):
    """Tag a frame of limited-range BT.709."""
    frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
    frame.color_primaries, frame.color_trc = ColorPrimaries.BT709, ColorTrc.BT709


def planes(image: torch.Tensor, bits: int) -> list[torch.Tensor]:
    """Luma [height, width] and both colour differences [height / 2, width / 2], of 4:2:0 limited-range BT.709.

    image: [height, width, 3] of 0..1; an odd side is made even by repeating its last row or column. bits: 8 gives
    uint8, more int16. A colour is the mean of its four pixels.
    """
    height, width = image.shape[:2]
    image = functional.pad(image.movedim(-1, 0)[None], (0, width % 2, 0, height % 2), mode="replicate")[0]
    red, _, blue = image
    luma = torch.tensordot(torch.tensor(LUMA, device=image.device), image, 1)
    colours = torch.stack([(blue - luma) / BLUE_RANGE, (red - luma) / RED_RANGE])
    colours = functional.avg_pool2d(colours[None], 2)[0]
    found = [BLACK + WHITE_STEPS * luma, *(NO_COLOUR + COLOUR_STEPS * colours)]
    kind = torch.uint8 if bits == 8 else torch.int16
    return [(it * 2 ** (bits - 8) + 0.5).to(kind) for it in found]


def frame_of(image: torch.Tensor, pixel_format: str) -> av.VideoFrame:
    """A frame of one of BITS, made where the image lies."""
    found = [it.cpu().numpy() for it in planes(image, BITS[pixel_format])]
    height, width = found[0].shape
    frame = av.VideoFrame(width, height, pixel_format)
    for plane, values in zip(frame.planes, found, strict=True):
        lines = np.frombuffer(plane, values.dtype).reshape(plane.height, -1)
        lines[:, : plane.width] = values
    as_bt709(frame)
    return frame
