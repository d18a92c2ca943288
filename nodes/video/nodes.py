"""Video Save, as the editor shows it."""

import logging
import time
from pathlib import Path

from comfy_api.latest import Input, InputImpl, io

from .. import index
from ..checks import check_choice, check_numbers
from ..errors import Failure, UnknownFormat
from ..host import paths, progress
from .encode import Written
from .formats import all_formats
from .join import VideoJoin
from .look import POSTERS
from .play import CUT_SOUND, SOUNDS, Play
from .show import shown
from .source import open_source
from .write import AUTO, format_of, save_poster, size_of, tags_of, write

log = logging.getLogger(__name__)


class VideoSave(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        keep = io.DynamicCombo.Option(AUTO, [])
        options = [io.DynamicCombo.Option(key, it.inputs()) for key, it in all_formats().items()]
        return io.Schema(
            node_id="Xavi9VideoSave",
            display_name="Video Save",
            category="Xavi9Videos/Video",
            description="Saves a video with its sound and its workflow inside, and shows it. Never overwrites a file.",
            search_aliases=["save video", "export video", "video combine", "mp4"],
            is_output_node=True,
            inputs=[
                io.Video.Input("video", tooltip="Any VIDEO: made here, loaded from a file, or trimmed."),
                io.String.Input(
                    "filename_prefix",
                    default="xavi9videos/video",
                    tooltip="Folders and the start of the name. %year% %month% %day% %width% %height% are filled in.",
                ),
                io.DynamicCombo.Input(
                    "format",
                    options=[keep, *options],
                    tooltip="auto keeps an MP4 or WebM as it is, bit for bit, and makes H.264 MP4 of everything else. "
                    + " ".join(f"{key}: {it.tooltip}" for key, it in all_formats().items()),
                ),
                io.Audio.Input("audio", optional=True, tooltip="Replaces the video's own sound."),
                io.Combo.Input(
                    "save_to",
                    options=list(paths.FOLDERS),
                    default="output",
                    optional=True,
                    tooltip="output keeps the file; temp is emptied when ComfyUI starts and ends.",
                ),
                io.Combo.Input(
                    "sound",
                    options=list(SOUNDS),
                    default=CUT_SOUND,
                    optional=True,
                    tooltip="What is done when sound and picture are not of one length. cut sound: it ends with the "
                    "picture. repeat sound: it begins again until the picture ends. hold picture: the last picture "
                    "stays until the sound ends. cut picture: it ends with the sound. no sound: it is left out.",
                ),
                io.Boolean.Input(
                    "pingpong",
                    default=False,
                    optional=True,
                    tooltip="Plays forwards, then backwards, so that it loops without a jump.",
                ),
                io.Int.Input(
                    "loop_count",
                    default=0,
                    min=0,
                    max=1000,
                    optional=True,
                    tooltip="How often the whole is repeated inside the file.",
                ),
                io.Combo.Input(
                    "poster",
                    options=list(POSTERS),
                    default="none",
                    optional=True,
                    tooltip="Saves that picture as a JPEG beside the video, under the same name.",
                ),
            ],
            outputs=[io.Video.Output("video", tooltip="The saved file; of webp, gif and png the video as it came.")],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix=None, format=None):
        # The host checks no DynamicCombo: one with a missing or unknown key does not arrive here at all.
        # filename_prefix is named so that the answer has an input to stand on.
        return True if format else str(UnknownFormat(allowed=", ".join([AUTO, *all_formats()])))

    @classmethod
    def execute(
        cls,
        video: Input.Video,
        filename_prefix: str,
        format: dict,
        audio=None,
        save_to: str = "output",
        sound: str = CUT_SOUND,
        pingpong: bool = False,
        loop_count: int = 0,
        poster: str = "none",
    ) -> io.NodeOutput:
        chosen, began = format_of(format), time.monotonic()
        settings = chosen.settings(format)
        source = open_source(video, settings.pixel_format, progress.stop_if_interrupted)
        target = paths.save_target(filename_prefix, save_to, source.width, source.height)
        check_numbers(cls, {"loop_count": loop_count})
        check_choice("sound", sound, SOUNDS)
        check_choice("poster", poster, POSTERS)
        play = Play(pingpong, loop_count, sound)
        path, written = write(source, target, format, audio, tags_of(cls.hidden), play)
        # Once it is remembered, another server may remove it for the next.
        took, size = time.monotonic() - began, size_of(path)
        beside = {}
        try:
            if poster != "none":
                beside["poster"] = index.identity(save_poster(path, POSTERS[poster]))
        except (Failure, OSError) as error:
            written.notes.append(f"it has no poster: {error}")
        finally:
            # The video is there, also when the poster was interrupted.
            # A folder of pictures has no bytes and no time of its own by which it could be known to be ours.
            if save_to == "output" and path.is_file():
                cls.remember(path, written, beside)
        for note in written.notes:
            log.warning("%s: %s", path.name, note)
        said = f"{written.frames} frames, {written.seconds:.2f} s, {size / 1e6:.1f} MB, {written.encoder}, {took:.1f} s"
        progress.show_text(cls.hidden, "\n".join([said, *written.notes]))
        # Not all that can be written can be read back as a VIDEO of so many frames.
        drawn = chosen.shown == "image" or path.is_dir()
        kind = None if written.encoder == "copy" else chosen
        made = shown(path, target.subfolder, save_to, kind, written, bytes=size, took=round(took, 3))
        return io.NodeOutput(video if drawn else InputImpl.VideoFromFile(str(path)), ui=made)

    @classmethod
    def remember(cls, path: Path, written: Written, beside: dict):
        facts = {
            "seconds": round(written.seconds, 3),
            "codec": written.codec,
            "size": [written.width, written.height],
            **index.origin(cls.hidden.prompt or {}, cls.hidden.unique_id),
            **beside,
        }
        try:
            index.add(paths.index_file(), path, **facts)
        except OSError as error:
            # A history without it is the smaller loss.
            log.warning("%s is not in the history: %s", path, error)


NODES = [VideoJoin, VideoSave]
