"""The GPU's encoder where one works: PyAV's own, or that of an ffmpeg on PATH, for PyAV has none on arm64."""

import contextlib
import logging
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import av
import torch

from ..errors import EncoderRefused, Failure, VideoEmpty, VideoUnreadable
from ..host import paths, progress
from ..parts import remove
from .copy import COPIED, copy
from .encode import Written, begin, encode, end, refused
from .formats import Format, Settings, all_formats
from .play import Play
from .sound import Sound
from .source import FileSource, Source, TensorSource

log = logging.getLogger(__name__)

# Seconds between two looks whether the user wants to stop.
LOOK_SECONDS = 0.5
MAX_WORDS = 500
# NVENC takes no picture below 145x49 (NVIDIA, Video Codec SDK, NV_ENC_CAPS_WIDTH_MIN and _HEIGHT_MIN).
TRIAL_SIZE, TRIAL_FRAMES = 256, 5


class Parts(list):
    """What FFmpeg has written, in a list: what its own call of a Python pipe raised would only be printed."""

    def write(self, data: bytes) -> int:
        self.append(bytes(data))
        return len(data)


def send(parts: Parts, pipe: int):
    """Write to a non-blocking pipe and empty the list; a full pipe is not waited for longer than the user does."""
    ready = select.poll()
    ready.register(pipe, select.POLLOUT)
    for part in parts:
        left = memoryview(part)
        while left:
            progress.stop_if_interrupted()
            if ready.poll(LOOK_SECONDS * 1000):
                left = left[os.write(pipe, left) :]
    parts.clear()


def kill(process: subprocess.Popen):
    """End it where it still runs, with whatever it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def said_by(line: str) -> str:
    """A line of FFmpeg's log without the part and the address that it begins with."""
    return re.sub(r"^\[[^\]]*\] *", "", line.strip())


def arguments(program: str, first: av.VideoFrame, source: Source, format: Format, settings: Settings) -> list[str]:
    """The command that encodes the NUT on its standard input to an MP4, whose name is to be appended."""
    options = [it for name, value in settings.options.items() for it in (f"-{name}:v", value)]
    colours = {
        "colorspace": first.colorspace,
        "color_primaries": first.color_primaries,
        "color_trc": first.color_trc,
        "color_range": first.color_range,
    }
    options += [it for name, value in colours.items() for it in (f"-{name}", str(int(value)))]
    options += ["-tag:v", format.tag] if format.tag else []
    base = first.time_base
    # Each frame keeps its own time, in the source's own units.
    times = ["-fps_mode", "passthrough", "-enc_time_base", f"{base.numerator}/{base.denominator}"]
    reading = [program, "-v", "error", "-nostdin", "-f", "nut", "-i", "pipe:0"]
    return [*reading, "-c:v", settings.encoder, "-pix_fmt", settings.pixel_format, *options, *times, "-f", "mp4", "-y"]


def encode_outside(
    program: str,
    source: Source,
    path: Path,
    format: Format,
    settings: Settings,
    tags: dict[str, str],
    sound: Callable[[], Sound | None],
    step: Callable[[int], None],
    play: Play = Play(),
) -> Written:
    """As encode(), by another program's encoder: it makes the picture, which is then copied beside the sound."""
    first, fitted = begin(source, path.parent, format, settings, sound, play)
    name = Path(program).name
    picture, times = paths.temp_file(".mp4"), []
    command = [*arguments(program, first, source, format, settings), str(picture)]
    with tempfile.TemporaryFile() as said, contextlib.ExitStack() as stack:
        stack.callback(remove, picture)
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
            )
        except OSError as error:
            raise refused(format, first, source, f"{name} does not start: {error.strerror}") from error
        stack.callback(process.wait)
        stack.callback(kill, process)
        stack.callback(process.stdin.close)
        pipe, parts = process.stdin.fileno(), Parts()
        os.set_blocking(pipe, False)
        # Its own words say why it has gone.
        with contextlib.suppress(BrokenPipeError):
            with av.open(parts, "w", format="nut") as raw:
                stream = raw.add_stream("rawvideo", rate=source.rate)
                context = stream.codec_context
                context.width, context.height, context.pix_fmt = first.width, first.height, first.format.name
                context.time_base, context.sample_aspect_ratio = first.time_base, source.upright_aspect
                for frame in fitted.frames():
                    times.append(frame.pts * frame.time_base)
                    raw.mux(stream.encode(frame))
                    send(parts, pipe)
                    step(fitted.count)
            send(parts, pipe)
        process.stdin.close()
        while process.poll() is None:
            step(fitted.count)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
        if process.returncode:
            said.seek(0)
            lines = said.read(MAX_WORDS).decode(errors="replace").splitlines()
            words = next((it for it in map(said_by, lines) if it), f"exit code {process.returncode}")
            raise refused(format, first, source, f"{name}: {words}")
        try:
            made = FileSource(str(picture), 0, 0, progress.stop_if_interrupted)
            same = as_asked(made, first, format, times)
        except (VideoUnreadable, VideoEmpty) as error:
            raise refused(format, first, source, f"{name} made no file that can be read") from error
        if not same:
            raise refused(format, first, source, f"{name} made other pictures than it was given")
        copy(
            made,
            path,
            format.container,
            COPIED[format.container][2],
            tags,
            fitted.sound,
            lambda done: step(fitted.count),
        )
    return end(source, format, settings.encoder, made.codec, first, fitted)


def as_asked(made: FileSource, first: av.VideoFrame, format: Format, times: list[Fraction]) -> bool:
    """Whether a file holds pictures of this format's codec, of the first one's size, at these times (seconds)."""
    with made.open() as container:
        packets = made.packets(container, [container.streams.video[0]])
        found = sorted(it.pts * it.time_base for it in packets if it.pts is not None)
    codec = av.Codec(format.encoder, "w").canonical_name
    return (made.codec, made.width, made.height, found) == (codec, first.width, first.height, times)


def reason_of(error: Exception) -> str:
    """Why it failed, in as few words as there are."""
    return str(error.values["reason"]) if isinstance(error, Failure) else str(error)


def check(path: Path):
    """Raise VideoUnreadable unless a trial's frames are all there."""
    found = sum(1 for _ in FileSource(str(path), 0, 0, progress.stop_if_interrupted).frames())
    if found != TRIAL_FRAMES:
        raise VideoUnreadable(reason=f"{found} of {TRIAL_FRAMES} frames")


@cache
def working(key: str, pixel_format: str) -> Callable[..., Written] | str:
    """What encodes this format on the GPU, found once by really encoding some frames; or in words why nothing does."""
    format, reasons = all_formats()[key], []
    settings = Settings(format.hardware["encoder"], pixel_format, format.hardware["fixed"])
    # Windows' pipes cannot be waited for, and its PyAV has NVENC.
    program = shutil.which("ffmpeg") if os.name == "posix" else None
    ways = {"PyAV": encode}
    if program:
        ways[Path(program).name] = partial(encode_outside, program)
    for name, way in ways.items():
        shape = (TRIAL_FRAMES, TRIAL_SIZE, TRIAL_SIZE)
        noise = torch.rand(*shape, 3, generator=torch.Generator().manual_seed(0))
        source = TensorSource(lambda noise=noise: noise, shape, Fraction(24), lambda: None, pixel_format)
        trial = paths.temp_file(f".{format.extension}")
        try:
            way(source, trial, format, settings, {}, source.sound, lambda done: progress.stop_if_interrupted())
            check(trial)
        except (EncoderRefused, VideoUnreadable, OSError) as error:
            reasons.append(f"{name}: {reason_of(error).removeprefix(f'{name}: ')}")
        else:
            log.info("%s encodes by %s of %s", key, settings.encoder, name)
            return way
        finally:
            trial.unlink(missing_ok=True)
    return f"no {settings.encoder} works here ({'; '.join(reasons)})"


def encode_best(
    source: Source,
    path: Path,
    format: Format,
    given: dict,
    tags: dict[str, str],
    sound: Callable[[], Sound | None],
    step: Callable[[int], None],
    play: Play = Play(),
) -> Written:
    """encode(), on the GPU where the options given ask for it and it works to the last frame; else in software."""
    settings, why = format.hardware_settings(given), ""
    if settings:
        way = working(format.key, settings.pixel_format)
        if isinstance(way, str):
            why = way
        else:
            try:
                return way(source, path, format, settings, tags, sound, step, play)
            except EncoderRefused as error:
                remove(path)
                why = reason_of(error)
    written = encode(source, path, format, format.settings(given), tags, sound, step, play)
    if why:
        written.notes.insert(0, f"encoded in software: {why}")
    return written
