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


def weight_files(folder: Path, kind: type) -> list[Path]:
    """The weights in a component's folder. Where they are there twice, the fp16 variant: published to run with."""
    base = "model" if hasattr(kind, "config_class") else "diffusion_pytorch_model"
    files = sorted(folder.glob(f"{base}*.safetensors"))
    return [it for it in files if ".fp16" in it.name] or files


def read(folder: Path, kind: type) -> dict[str, torch.Tensor]:
    """The tensors of a component, mapped. Raises ModelFileBroken, and ValueError where a name is there twice."""
    found = {}
    for file in weight_files(folder, kind):
        tensors, _ = layers.read(str(file))
        if twice := found.keys() & tensors:
            raise ValueError(f"{min(twice)} is in two of its files, {file.name} is one")
        found |= tensors
    if not found:
        raise ValueError("it has no weights as .safetensors")
    return found


def pipeline(path: str) -> str:
    """What a folder is for, in words."""
    try:
        return f"a folder of {described(Path(path) / 'model_index.json')['_class_name']}"
    except (OSError, LookupError, ValueError):
        return "an incomplete diffusers folder"


def class_of(folder: Path) -> object:
    """The class that a component's config.json names; None where there is none."""
    try:
        return described(folder / "config.json").get("_class_name")
    except (OSError, ValueError):
        return None


def skeleton(folder: Path, kind: type) -> torch.nn.Module:
    """The module that config.json describes, of diffusers' or transformers' class `kind`, on the meta device.

    Raises OSError, LookupError, ValueError, TypeError or AttributeError for a description that makes none.
    """
    given = described(folder / "config.json")
    found = given.get("_class_name") or next(iter(given.get("architectures") or ()), "nothing")
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
        place = Path(path) / name
        try:
            modules[name], parts[name] = skeleton(place, kind), read(place, kind)
        except (OSError, LookupError, ValueError, TypeError, AttributeError) as error:
            reason = f"its {name} makes no model ({error})"
            raise WrongModelFile(file=Path(path).name, wanted=wanted, reason=reason, found=pipeline(path)) from error
    return modules, parts
