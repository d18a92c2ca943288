"""Where files go: inside the host's own folders, whatever a workflow says."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import folder_paths
from comfy.cli_args import args

from ..errors import BadFilenamePrefix, ModelFileMissing

PIPELINE = "model_index.json"  # in the folder of a whole pipeline
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
FOLDERS = {"output": folder_paths.get_output_directory, "temp": folder_paths.get_temp_directory}


@dataclass(frozen=True)
class Target:
    """A folder that exists, the file name's stem, the first free counter, and the folder as the editor names it."""

    folder: Path
    stem: str
    counter: int
    subfolder: str


def save_target(prefix: str, save_to: str, width: int, height: int) -> Target:
    """Resolve a filename_prefix with the host's rules (%width%, %year% and so on, folders, counter).

    Raises BadFilenamePrefix when it is empty, leaves the folder, or cannot be made.
    """
    try:
        if not isinstance(prefix, str):
            raise ValueError("it is no text")
        folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(
            prefix, FOLDERS[save_to](), width, height
        )
        if stem in ("", ".") or ".." in stem or CONTROL.search(prefix) or len(stem.encode()) > 200:
            # The host's /view would not show it.
            raise ValueError("it needs a file name of 1 to 200 bytes, without two dots in a row or control characters")
        Path(folder).mkdir(parents=True, exist_ok=True)
        # As the host's /view wants it, also where the prefix is a whole path.
        subfolder = os.path.relpath(folder, FOLDERS[save_to]())
    except Exception as error:
        # The host raises a bare Exception for a path outside its folder, in several lines.
        reason = " ".join(str(error).split()).removeprefix("**** ERROR: ")
        raise BadFilenamePrefix(given=prefix, reason=reason, save_to=save_to) from None
    return Target(Path(folder), stem, counter, "" if subfolder == os.curdir else subfolder)


def model_names(kind: str, whole: str = "") -> list[str]:
    """The host's list of this kind of model files, where a folder that holds a file called `whole` stands as one.

    kind: a key of folder_paths, such as "checkpoints".
    """
    names = folder_paths.get_filename_list(kind)
    folders = set()
    for root in folder_paths.get_folder_paths(kind) if whole else ():
        places = os.walk(root, followlinks=True)
        folders |= {os.path.relpath(place, root) for place, _, files in places if whole in files}
    folders -= {"."}
    inside = [it for it in names if any(Path(it).is_relative_to(folder) for folder in folders)]
    return sorted({*names, *folders} - set(inside))


def model_path(kind: str | tuple[str, ...], name: str | None, model: str) -> str:
    """The full path of a file or folder out of model_names(), of one kind or several. Raises ModelFileMissing.

    model: what docker/download_models.sh calls it.
    """
    kinds = (kind,) if isinstance(kind, str) else kind
    roots = [root for it in kinds for root in folder_paths.get_folder_paths(it)]
    if not isinstance(name, str | None):
        raise ModelFileMissing(file=name, folder=" or ".join(roots), model=model)
    # As the host does it: what climbs out of the folder ends at its top.
    inside = os.path.relpath(os.path.join("/", name or ""), "/")
    for root in map(Path, roots):
        if inside != "." and (root / inside).exists():
            return str(root / inside)
    raise ModelFileMissing(file=name or "(none chosen)", folder=" or ".join(roots), model=model)


def model_folders(kind: str) -> list[str]:
    """Where the host looks for this kind of model files."""
    return folder_paths.get_folder_paths(kind)


def checkpoint_names() -> list[str]:
    """The files in checkpoints, and the folders of whole pipelines in diffusers."""
    return model_names("checkpoints") + model_names("diffusers", PIPELINE)


def checkpoint_path(name: str | None, model: str) -> str:
    """The full path of one of checkpoint_names(). Raises ModelFileMissing, as model_path()."""
    return model_path(("checkpoints", "diffusers"), name, model)


def temp_file(suffix: str) -> Path:
    """A new name in the host's temp folder, which the host empties when it starts and ends."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"xavi9-{uuid4().hex}{suffix}"


def own_folder(*names: str) -> Path:
    """A folder for our own files in the user folder, one that the host serves to nobody."""
    folder = Path(folder_paths.get_system_user_directory("xavi9videos"), *names)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def index_file() -> Path:
    """Our index of saved videos, which holds prompts."""
    return own_folder() / "videos.jsonl"


def inside(path: Path) -> bool:
    """Whether it lies in one of the host's folders that we write to."""
    return any(path.resolve().is_relative_to(Path(of()).resolve()) for of in FOLDERS.values())


def place(path: str) -> tuple[str, str, str] | None:
    """Type, subfolder and filename, by which the host's /view finds a file; None for one that it does not serve."""
    for kind, of in FOLDERS.items():
        folder = os.path.join(of(), "")
        if path.startswith(folder) and ".." not in path.split(os.sep):
            return kind, *os.path.split(path.removeprefix(folder))
    return None


def metadata_wanted() -> bool:
    """False when the server was started with --disable-metadata."""
    return not args.disable_metadata
