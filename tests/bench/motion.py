"""Pictures that cost an encoder about what film costs it: a textured scene, a camera, things that move, grain."""

import math

import torch
from torch.nn.functional import interpolate

OBJECTS = 8
GRAIN = 0.016


def texture(dice: torch.Generator, height: int, width: int) -> torch.Tensor:
    """Noise with the falling spectrum and the pale colours of nature, [height, width, 3], values 0..1."""
    picture = torch.zeros(1, 3, height, width)
    for cell in (2, 4, 8, 16, 32, 64, 128, 256):
        light, colour = (torch.rand(1, it, height // cell + 2, width // cell + 2, generator=dice) for it in (1, 3))
        picture += interpolate(light + 0.4 * colour, size=(height, width), mode="bicubic") * cell**0.6
    return ((picture - picture.min()) / (picture.max() - picture.min()))[0].permute(1, 2, 0).contiguous()


def motion(frames: int, height: int, width: int) -> torch.Tensor:
    """float32 [frames, height, width, 3] in 0..1; the same arguments give the same values."""
    dice = torch.Generator().manual_seed(0)
    scene = texture(dice, height + 2 * frames + 2, width + 4 * frames + 2)
    grain = torch.randn(2 * height, 2 * width, 1, generator=dice) * GRAIN
    size = height // 5
    things = [texture(dice, size, size) for _ in range(OBJECTS)]
    ring = torch.linspace(-1, 1, size).square()
    shape = ((1 - ring[:, None] - ring) * 8).clamp(0, 1)[..., None]
    corners = torch.randint(0, height, (frames, 2), generator=dice).tolist()
    film = torch.empty(frames, height, width, 3)
    for index, frame in enumerate(film):
        # Half a pixel at every other frame, as no real camera moves in whole ones.
        x, y, between = 7 * index // 2, 3 * index // 2, index % 2 / 2
        here, next_column = (scene[y : y + height, it : it + width] for it in (x, x + 1))
        torch.lerp(here, next_column, between, out=frame)
        for number, thing in enumerate(things):
            angle = 0.05 * index * (1 + number / OBJECTS) + number
            left = int((width - size) * (0.5 + 0.5 * math.sin(angle)))
            top = int((height - size) * (0.5 + 0.5 * math.cos(1.3 * angle)))
            frame[top : top + size, left : left + size].lerp_(thing, shape)
        down, right = corners[index]
        frame.add_(grain[down : down + height, right : right + width]).clamp_(0, 1)
    return film
