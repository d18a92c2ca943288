"""Small videos for tests, and what ffprobe, which is not ours, says of a file."""

import json
import subprocess
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch


def moving(frames: int, height: int, width: int) -> torch.Tensor:
    """A gradient that moves by three columns a frame, [frames, height, width, 3], values 0..1; no two are alike."""
    across = torch.linspace(0, 1, width).expand(height, width)
    down = torch.linspace(0, 1, height)[:, None].expand(height, width)
    pictures = [
        torch.stack([across.roll(3 * it, 1), down, torch.full_like(down, it / max(frames, 2))], -1)
        for it in range(frames)
    ]
    return torch.stack(pictures) if frames else torch.empty(0, height, width, 3)


def ffmpeg(*arguments) -> Path:
    """Runs FFmpeg's program, which is not ours. The last argument is the file that it makes."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)
    return arguments[-1]


def sine(seconds: float, rate: int = 48_000, channels: int = 2, frequency: int = 440) -> dict:
    """The host's AUDIO."""
    wave = 0.5 * torch.sin(torch.arange(round(seconds * rate)) * 2 * torch.pi * frequency / rate)
    return {"waveform": wave.expand(1, channels, -1).clone(), "sample_rate": rate}


def write_file(path: Path, frames: int = 48, gop: int = 12, codec: str = "libx264", **options) -> Path:
    """A file of moving() at 128x96 with 440 Hz sound, made with PyAV alone; bf=0 in `options` means no B-frames."""
    container = "webm" if path.suffix == ".webm" else "mov" if path.suffix == ".mov" else "mp4"
    with av.open(str(path), "w", format=container) as output:
        # sc_threshold: keyframes stand where gop says, and nowhere else.
        given = {"g": gop, "sc_threshold": 0, **options}
        video = output.add_stream(codec, rate=24, options={key: str(value) for key, value in given.items()})
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        audio = output.add_stream("libopus" if container == "webm" else "aac", rate=48_000, layout="stereo")
        for picture in moving(frames, 96, 128):
            frame = av.VideoFrame.from_ndarray((picture * 255).byte().numpy(), format="rgb24")
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        samples = sine(frames / 24)["waveform"][0].numpy()
        for start in range(0, samples.shape[1], 960):
            part = np.ascontiguousarray(samples[:, start : start + 960])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 48_000, start
            output.mux(audio.encode(frame))
        output.mux(audio.encode(None))
    return path


def probe(path: Path) -> dict:
    """ffprobe's view: {"video": stream, "audio": stream or None, "format": ...}; frames are counted by decoding."""
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", str(path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    of_type = {it["codec_type"]: it for it in reversed(found["streams"])}
    return {"video": of_type["video"], "audio": of_type.get("audio"), "format": found["format"]}


def pictures(path: Path) -> list[np.ndarray]:
    """Every frame as [height, width, 3] of 0..255."""
    with av.open(str(path)) as container:
        return [it.to_ndarray(format="rgb24") for it in container.decode(video=0)]


def packets(path: Path, kind: str = "video") -> list[bytes]:
    """The payloads of the packets, in file order."""
    with av.open(str(path)) as container:
        return [bytes(it) for it in container.demux(getattr(container.streams, kind)[0]) if it.size]


def write_lossless(path: Path, frames: np.ndarray, rate: int, times: list[int] | None = None, aspect: int = 1) -> str:
    """frames [n, height, width, 3] of bytes, which come back the same: FFV1 in .mkv, H.264 of RGB in .mp4.

    times: when each is seen, in frames; aspect: how many times as wide as high a pixel is.
    """
    codec, form = {".mkv": ("ffv1", "bgr0"), ".mp4": ("libx264rgb", "rgb24")}[path.suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "0"} if codec == "libx264rgb" else {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.codec_context.sample_aspect_ratio = form, Fraction(aspect)
        for frame, time in zip(frames, times or range(len(frames)), strict=True):
            frame = av.VideoFrame.from_ndarray(frame, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def numbered(count: int, step: int = 3, height: int = 96, width: int = 128) -> np.ndarray:
    """Frames for write_lossless(): all of the n-th is n times `step`."""
    return np.stack([np.full((height, width, 3), it * step, np.uint8) for it in range(count)])


def write_sound(path: Path, rate: int, samples: int):
    """A rising tone on the left and noise on the right, as 16-bit WAV."""
    time = np.arange(samples) / rate
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, samples)
    values = np.stack([0.5 * np.sin(2 * np.pi * (200 + 400 * time) * time), noise], 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((values * 32767).astype("<i2").tobytes())
