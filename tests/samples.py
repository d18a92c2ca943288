"""A photograph, a clip and a sound for the shipped workflows to start from."""

from pathlib import Path

from clips import write_sound
from nim.picture import video
from PIL import Image

# "Coffee cup", courtesy of Pikolo Espresso Bar; CC0 by the photographer, Rachel Michetti.
PHOTOGRAPH = Path(__file__).parent / "media" / "coffee.jpg"


def put_samples(base: Path) -> None:
    """Writes input/example.png, which every ComfyUI has under this name; input/clip.mp4: 2 s, 960x540, 30 fps; and
    input/sound.wav: 5 s."""
    folder = base / "input"
    folder.mkdir(parents=True, exist_ok=True)
    Image.open(PHOTOGRAPH).save(folder / "example.png")
    write_sound(folder / "sound.wav", 44_100, 5 * 44_100)
    (folder / "clip.mp4").write_bytes(video("low sun over dunes", 7, 960, 540, 60, 30))
