"""The loopback NIM's pictures, in YUV 4:2:0 and VP9: drifting dunes under a sun, or a moving crop of what was sent."""

import colorsys
import hashlib
import io
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np

LAYERS = 5
BT709 = 1  # FFmpeg's number for the primaries, the transfer and the matrix alike
LIMITED_RANGE = 1
PARTS = 1, 2, 2  # of a frame's width and height, in the planes y, u, v


def yuv(hue: float, saturation: float, value: float) -> np.ndarray:
    """The colour as BT.709 limited-range (y, u, v), float32."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return np.array([16 + 219 * y, 128 + 224 * (b - y) / 1.8556, 128 + 224 * (r - y) / 1.5748], np.float32)


class Scene:
    """One landscape, decided by prompt and seed alone; `draw` and `planes` show it at any size and time."""

    def __init__(self, prompt: str, seed: int):
        digest = hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()
        rng = np.random.default_rng(list(digest))
        hue, drift = rng.uniform(), rng.choice([-1, 1]) * rng.uniform(0.06, 0.12)
        self.sky = yuv(hue, 0.62, 0.58), yuv(hue + drift, 0.38, 1.0)
        self.sun = yuv(hue + 1.5 * drift, 0.16, 1.0)
        self.sun_x, self.sun_y, self.sun_radius = rng.uniform(0.2, 0.8), rng.uniform(0.22, 0.36), rng.uniform(0.07, 0.1)
        shades = np.linspace(0.0, 1.0, LAYERS)
        self.crest = [yuv(hue + drift * (1 - s), 0.42 + 0.3 * s, 0.92 - 0.62 * s) for s in shades]
        self.foot = [yuv(hue + drift * (1 - s), 0.5 + 0.3 * s, 0.8 - 0.64 * s) for s in shades]
        self.level = 0.42 + 0.46 * shades
        self.waves = rng.uniform([1.0, 2.2, 4.0], [1.8, 3.4, 6.0], (LAYERS, 3))
        self.phases = rng.uniform(0, 2 * np.pi, (LAYERS, 3))
        self.speed = rng.choice([-1, 1]) * (0.25 + 0.9 * shades)

    def planes(self, width: int, height: int, seconds: float) -> list[np.ndarray]:
        """The planes y, u and v of a frame of width x height pixels, both even."""
        return [self.draw(plane, width // part, height // part, seconds) for plane, part in enumerate(PARTS)]

    def draw(self, plane: int, width: int, height: int, seconds: float) -> np.ndarray:
        """Plane 0, 1 or 2 (y, u, v) of width x height samples as uint8 [height, width]."""
        x = (np.arange(width, dtype=np.float32) + 0.5) / width
        y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
        top, horizon = self.sky[0][plane], self.sky[1][plane]
        picture = np.repeat(top + (horizon - top) * np.minimum(y / 0.5, 1), width, axis=1)
        self._paint_sun(picture, plane, seconds)
        crests = [self._crest(layer, x, seconds) * height for layer in range(LAYERS)]
        rows = np.arange(height, dtype=np.float32)[:, None]
        for layer, crest in enumerate(crests):
            start = max(int(crest.min()) - 1, 0)
            # Whatever lies below the next crest is painted over by the next layer.
            stop = min(int(crests[layer + 1].max()) + 2, height) if layer + 1 < LAYERS else height
            depth = rows[start:stop] - crest
            light, dark = self.crest[layer][plane], self.foot[layer][plane]
            cover = np.clip(depth, 0, 1)
            depth *= (dark - light) / (0.18 * height)
            np.clip(depth, min(0, dark - light), max(0, dark - light), out=depth)
            depth += light
            below = picture[start:stop]
            depth -= below
            depth *= cover
            below += depth
        return (picture + 0.5).astype(np.uint8)

    def _crest(self, layer: int, x: np.ndarray, seconds: float) -> np.ndarray:
        """The upper edge of one dune as a share of the height, for every x in 0..1."""
        angles = self.waves[layer][:, None] * x * np.pi + self.phases[layer][:, None] + self.speed[layer] * seconds
        heights = np.array([0.045, 0.02, 0.006])[:, None] * np.sin(angles)
        return (self.level[layer] + heights.sum(axis=0)).astype(np.float32)

    def _paint_sun(self, picture: np.ndarray, plane: int, seconds: float) -> None:
        height, width = picture.shape
        radius = self.sun_radius * min(width, height)
        dx = np.arange(width, dtype=np.float32) - width * (self.sun_x + 0.03 * np.sin(0.5 * seconds))
        dy = np.arange(height * 3 // 5, dtype=np.float32) - height * (self.sun_y + 0.01 * np.sin(0.9 * seconds))
        sky = picture[: len(dy)]
        down, across = (np.exp(-((d / radius / 3) ** 2)) for d in (dy, dx))
        sky += (self.sun[plane] - sky) * np.outer(0.55 * down, across)
        row, column = np.abs(dy) < radius + 1, np.abs(dx) < radius + 1
        disc = sky[np.ix_(row, column)]
        cover = np.clip(radius - np.hypot(dy[row][:, None], dx[column]) + 0.5, 0, 1)
        sky[np.ix_(row, column)] = disc + (self.sun[plane] - disc) * cover


def moving_crop(media: bytes, width: int, height: int, frames: int) -> Iterator[list[np.ndarray]]:
    """The `frames` pictures of a reply of width x height pixels, both even, that starts from an image or a clip.

    Picture i is a window of 7/8 of the width and height of the media's frame i, or of its last one (an image has one),
    scaled up to width x height. It slides linearly from the top left at the first picture to the bottom right at the
    last. More exactly: the media's frame is scaled to 8/7 of width and height, both rounded down to even numbers, and
    the window of width x height lies at whole pixels, rounded down. Each picture is its planes y, u, v as uint8
    [rows, columns], BT.709 in limited range.
    """
    wide, high = (side * 8 // 14 * 2 for side in (width, height))
    with av.open(io.BytesIO(media)) as container:
        decoded = container.decode(video=0)
        for index in range(frames):
            if frame := next(decoded, None):
                frame = frame.reformat(wide, high, "yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE)
                rows = frame.to_ndarray()
                planes = [rows[:high], *rows[high:].reshape(2, high // 2, wide // 2)]
            left, top = ((slack * index // max(frames - 1, 1)) for slack in (wide - width, high - height))
            yield [
                plane[top // part :, left // part :][: height // part, : width // part]
                for plane, part in zip(planes, PARTS)
            ]


@lru_cache(maxsize=32)
def video(
    prompt: str, seed: int, width: int, height: int, frames: int, fps: float, media: bytes | None = None
) -> bytes:
    """An MP4 with one VP9 track: exactly `frames` frames of width x height at `fps`, a keyframe every 24 frames.

    It shows the moving crop of `media`, the bytes of an image or a clip, or else the landscape of prompt and seed. The
    same arguments give the same bytes.
    """
    rate = Fraction(fps).limit_denominator(100_000)
    if media:
        pictures = moving_crop(media, width, height, frames)
    else:
        scene = Scene(prompt, seed)
        pictures = (scene.planes(width, height, float(index / rate)) for index in range(frames))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        options = {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "14", "b": "0"}
        stream = container.add_stream("libvpx-vp9", rate=rate, options=options)
        codec = stream.codec_context
        codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
        codec.gop_size, codec.thread_count = 24, 2
        codec.color_primaries = codec.color_trc = codec.colorspace = BT709
        codec.color_range = LIMITED_RANGE
        for index, planes in enumerate(pictures):
            rows = np.concatenate([plane.ravel() for plane in planes]).reshape(height * 3 // 2, width)
            frame = av.VideoFrame.from_ndarray(rows, format="yuv420p")
            frame.pts, frame.time_base = index, 1 / rate
            frame.colorspace, frame.color_range = BT709, LIMITED_RANGE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
