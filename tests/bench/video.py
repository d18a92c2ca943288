"""Video Save against ComfyUI's own SaveVideo, and against cp."""

import itertools
import multiprocessing
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from statistics import median

import av
import conftest  # noqa: F401  the host's modules, and the pack as xavi9videos
from bench.cosmos import resident_mb
from bench.motion import motion
from bench.row import Row, compared, paired
from comfy_api.latest import InputImpl, Types
from xavi9videos.nodes.host.paths import Target
from xavi9videos.nodes.video.source import LazyVideo, open_source
from xavi9videos.nodes.video.write import write

FRAMES, HEIGHT, WIDTH, RATE = 121, 1080, 1920, 24
LONG, SHORT, PIECE = 1000, 96, 4
COPY_BYTES = 64_000_000
TAGS = {"prompt": '{"1": {"class_type": "Xavi9VideoSave", "inputs": {}}}'}


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def pictures(path: Path) -> int:
    with av.open(str(path)) as file:
        return sum(bool(packet.size) for packet in file.demux(video=0))


def video_save() -> Row:
    """Frames per second from tensor to finished file, both at the encoder's defaults, crf 23 and medium."""
    images = motion(FRAMES, HEIGHT, WIDTH)
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(RATE)))
    given = {"format": "mp4-h264", "crf": 23, "preset": "medium"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def ours() -> float:
            return FRAMES / seconds(lambda: write(open_source(video), Target(folder, "ours", 1, ""), given, None, TAGS))

        def peer() -> float:
            return FRAMES / seconds(lambda: video.save_to(str(folder / "peer.mp4"), metadata=TAGS))

        row = compared("video_save", *paired(11, ours, peer), "frames/s", ">=", 1.15)
        assert {pictures(path) for path in folder.iterdir()} == {FRAMES}
    return row


def grown() -> float:
    """MB by which the most that a process takes up to the last frame of LONG exceeds the most up to frame SHORT.

    What an encoder holds back, some dozens of frames whatever the length, is there by then. A single moment is no
    measure: from frame to frame it is a hundred MB more or less.
    """
    piece, most = motion(PIECE, HEIGHT, WIDTH), []

    def frames():
        for index in range(0, LONG, PIECE):
            if index in (0, SHORT):
                most.append(resident_mb("VmHWM"))
                Path("/proc/self/clear_refs").write_text("5")
            yield piece

    video = LazyVideo(frames, lambda: None, (LONG, HEIGHT, WIDTH), Fraction(RATE))
    given = {"format": "mp4-h264", "preset": "ultrafast"}
    with tempfile.TemporaryDirectory() as name:
        path, _ = write(open_source(video), Target(Path(name), "ours", 1, ""), given, None, TAGS)
        assert pictures(path) == LONG
    return resident_mb("VmHWM") - most[1]


def video_save_memory() -> Row:
    """MB grown over 1,000 frames of 1080p, which as one float tensor would be 25,000."""
    found = []
    for _ in range(3):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
            found.append(apart.submit(grown).result())
    most = median(found)
    return Row("video_save_memory", most, None, most, "MB", "<=", 100, most <= 100, len(found))


def clip(path: Path):
    """An H.264 MP4 of COPY_BYTES and a little, of one second of pictures again and again."""
    with av.open(str(path), "w") as file:
        options = {"crf": "23", "preset": "ultrafast", "tune": "zerolatency"}
        stream = file.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        frames = (av.VideoFrame.from_ndarray((picture * 255).byte().numpy(), format="rgb24")
                  for picture in motion(RATE, stream.height, stream.width))
        packets = [packet for frame in (*frames, None) for packet in stream.encode(frame)]
        left = COPY_BYTES
        for index, packet in enumerate(itertools.cycle(packets)):
            if left <= 0 and packet.is_keyframe:
                break
            left -= packet.size
            again = av.Packet(bytes(packet))
            again.stream, again.time_base, again.is_keyframe = stream, 1 / Fraction(RATE), packet.is_keyframe
            again.pts = again.dts = index
            file.mux_one(again)


def video_passthrough() -> Row:
    """A file copied under a new name, ours with new tags."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "out")
        folder.mkdir()
        source, copy = Path(name, "clip.mp4"), folder / "peer.mp4"
        clip(source)
        size = source.stat().st_size / 1e6
        video, target = InputImpl.VideoFromFile(str(source)), Target(folder, "ours", 1, "")
        # A clone on a file system that can would move no byte at all.
        command = ["cp", "--reflink=never", source, copy]

        def ours() -> float:
            for path in folder.glob("ours*"):
                path.unlink()
            return size / seconds(lambda: write(open_source(video), target, {"format": "auto"}, None, TAGS))

        def peer() -> float:
            copy.unlink(missing_ok=True)
            return size / seconds(lambda: subprocess.run(command, check=True))

        row = compared("video_passthrough", *paired(41, ours, peer), "MB/s", ">=", 0.4)
        assert {pictures(path) for path in folder.iterdir()} == {pictures(source)}
    return row
