"""How pictures and sound fill a file: forwards and back, again and again, and what gives way when one is longer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise, repeat
from pathlib import Path
from tempfile import TemporaryFile

import av

from .sound import SLACK_SECONDS, Cycle, Sound, repeated

# What is done when picture and sound are not of one length.
SOUNDS = CUT_SOUND, REPEAT_SOUND, HOLD_PICTURE, CUT_PICTURE, NO_SOUND = (
    "cut sound",
    "repeat sound",
    "hold picture",
    "cut picture",
    "no sound",
)


@dataclass(frozen=True)
class Play:
    """What is done to pictures and sound on their way into a file.

    pingpong: backwards after forwards, the first and last picture not twice. loop_count: so many times again.
    sound: one of SOUNDS.
    """

    pingpong: bool = False
    loop_count: int = 0
    sound: str = CUT_SOUND

    @property
    def again(self) -> bool:
        """Whether a picture is shown more than once."""
        return self.pingpong or self.loop_count > 0

    @property
    def keeps_pictures(self) -> bool:
        return not self.again and self.sound not in (HOLD_PICTURE, CUT_PICTURE)

    def count(self, frames: int) -> int:
        """How many frames become of so many."""
        return (frames + self.pingpong * max(frames - 2, 0)) * (self.loop_count + 1)

    def heard(self, sound: Callable[[], Sound | None], cycle: Cycle) -> Sound | None:
        """What of this sound goes into the file; None where it has not one sample."""
        if self.sound == NO_SOUND:
            return None
        found = repeated(sound, cycle) if self.sound == REPEAT_SOUND else sound()
        return found if found and found.goes_beyond(Fraction(0)) else None


class Spool:
    """Frames of one size and format in a file without a name, which no crash can leave behind."""

    def __init__(self, folder: Path, like: av.VideoFrame):
        self.file, self.like = TemporaryFile(dir=folder), like
        self.packer, self.unpacker = (av.CodecContext.create("rawvideo", mode) for mode in "wr")
        for context in (self.packer, self.unpacker):
            context.width, context.height, context.pix_fmt = like.width, like.height, like.format.name
        self.packer.time_base = like.time_base
        self.bytes = 0

    def add(self, frame: av.VideoFrame):
        data = bytes(self.packer.encode(frame)[0])
        self.bytes = len(data)
        self.file.write(data)

    def __getitem__(self, index: int) -> av.VideoFrame:
        self.file.seek(index * self.bytes)
        frame = self.unpacker.decode(av.Packet(self.file.read(self.bytes)))[0]
        like = self.like
        frame.time_base = like.time_base
        frame.colorspace, frame.color_range = like.colorspace, like.color_range
        frame.color_primaries, frame.color_trc = like.color_primaries, like.color_trc
        return frame


def played(
    frames: Iterator[av.VideoFrame], play: Play, lasts: Callable[[], Fraction], folder: Path, cycle: Cycle
) -> Iterator[av.VideoFrame]:
    """The frames, and as often as `play` says again, each as long as it was the first time; spooled in `folder`.

    lasts: for how many seconds the last one is seen, known when it has come. Tells `cycle` before the first one comes
    again.
    """
    if not play.again:
        yield from frames
        return
    spool, begins = None, []
    for frame in frames:
        spool = spool or Spool(folder, frame)
        spool.add(frame)
        begins.append(frame.pts)
        yield frame
    if spool is None:
        return
    at = begins[-1] + round(lasts() / spool.like.time_base)
    each = [end - begin for begin, end in pairwise([*begins, at])]
    there, back = range(len(begins)), range(len(begins) - 2, 0, -1) if play.pingpong else ()
    cycle.seconds = sum(each[it] for it in (*there, *back)) * spool.like.time_base
    for index in chain(back, *repeat([*there, *back], play.loop_count)):
        frame = spool[index]
        frame.pts, frame.pict_type = at, 0
        at += each[index]
        yield frame


def length_notes(sound: Sound | None, end: Fraction) -> list[str]:
    """What is to be said of a sound that is written to a file whose picture ends at this second."""
    if sound and sound.goes_beyond(end + SLACK_SECONDS):
        return [] if sound.endless else [f"the sound was cut at {float(end):.2f} s, where the picture ends"]
    if sound and sound.end < end - SLACK_SECONDS:
        return [f"the sound ends at {float(sound.end):.2f} s, before the picture"]
    return []


class Fitted:
    """Pictures and their sound made one length, as `play` says; what was done is in `notes`, in words."""

    def __init__(
        self,
        frames: Iterator[av.VideoFrame],
        sound: Sound | None,
        play: Play,
        rate: Fraction,
        notes: list[str],
        lasts: Callable[[], Fraction],
    ):
        self.source, self.sound, self.play, self.rate, self.notes = frames, sound, play, rate, notes
        self.lasts = lasts
        self.count, self.end = 0, Fraction(0)

    def frames(self) -> Iterator[av.VideoFrame]:
        """The pictures; count and end (seconds) follow them."""
        for frame in self.source:
            at = frame.pts * frame.time_base
            if self.play.sound == CUT_PICTURE and self.sound and not self.sound.goes_beyond(at):
                self.notes.append(f"the picture was cut at {float(self.end):.2f} s, where the sound ends")
                return
            self.count, self.end = self.count + 1, at + 1 / self.rate
            yield frame
        if not self.play.again and (more := self.lasts() - 1 / self.rate) > SLACK_SECONDS:
            # Some containers have no room for how long the last one lasts.
            frame.pts += round(more / frame.time_base)
            self.count, self.end = self.count + 1, self.end + more
            self.notes.append(f"its last picture, seen for {float(self.lasts()):.2f} s, is there twice")
            yield frame
        picture = self.end
        if self.play.sound == HOLD_PICTURE and self.sound:
            step = round(1 / (self.rate * frame.time_base))
            while self.sound.goes_beyond(self.end):
                frame.pts += step
                self.count, self.end = self.count + 1, self.end + 1 / self.rate
                yield frame
        if self.end > picture:
            self.notes.append(f"the last picture is held from {float(picture):.2f} s until the sound ends")
        self.notes += length_notes(self.sound, self.end)
