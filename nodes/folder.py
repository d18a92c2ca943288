"""Models in a folder as diffusers writes it: one folder for each component, with a config.json and its weights."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from .errors import WrongModelFile
from .host import layers


def described(path: Path) -> dict:
    """A JSON file of a folder. Raises OSError or ValueError."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no description")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The .safetensors in a component's folder. Where it is there twice, the fp16 variant: published to run with."""
    files = sorted(folder.glob("*.safetensors"))
    return [it for it in files if ".fp16" in it.name] or files


def pipeline(path: str) -> str:
    """What a folder is for, in words."""
    try:
        return f"a folder of {described(Path(path) / 'model_index.json')['_class_name']}"
    except (OSError, LookupError, ValueError):
        return "an incomplete diffusers folder"


def skeleton(folder: Path, kind: type) -> torch.nn.Module:
    """The module that config.json describes, of diffusers' or transformers' class `kind`, on the meta device.

    Raises OSError, LookupError, ValueError, TypeError or AttributeError for a description that makes none.
    """
    given = described(folder / "config.json")
    found = given.get("_class_name") or given["architectures"][0]
    if found != kind.__name__:
        raise ValueError(f"{kind.__name__} is needed, and it is {found}")
    with torch.device("meta"):
        if hasattr(kind, "config_class"):
            return kind(kind.config_class.from_dict(given))
        return kind.from_config(given)


def open_folder(
    path: str, wanted: str, classes: Mapping[str, type]
) -> tuple[dict[str, torch.nn.Module], dict[str, dict[str, torch.Tensor]]]:
    """Skeletons of a pipeline's components, and their tensors by the modules' names, mapped.

    classes: the class of each component, by the name of its folder. wanted: what it should be, in words. Raises
    ModelFileBroken, or WrongModelFile for a folder that holds something else.
    """
    modules, parts = {}, {}
    for name, kind in classes.items():
        folder = Path(path) / name
        files = weight_files(folder)
        try:
            if not files:
                raise ValueError("it has no .safetensors")
            modules[name] = skeleton(folder, kind)
        except (OSError, LookupError, ValueError, TypeError, AttributeError) as error:
            reason = f"its {name} makes no model ({error})"
            raise WrongModelFile(file=Path(path).name, wanted=wanted, reason=reason, found=pipeline(path)) from error
        parts[name] = {key: it for file in files for key, it in layers.read(str(file))[0].items()}
    return modules, parts
