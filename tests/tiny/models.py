"""The tiny models under the names that people's files have, and what demo and tests lower to run them."""

import copy
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# What two cores need of a LOCAL model's size; everything else of a shipped graph stays. The two stages end at
# 512x270, which is no multiple of 32, so that the crop still shows.
SIZES = {
    "Xavi9LTX2Sampler": {"width": 256, "height": 160, "frames": 17},
    "Xavi9LTX2Upscale": {"width": 256, "height": 135, "frames": 17},  # the sampler's, in a graph that has this node
    "Xavi9LTX2Keyframe": {"frame": 8},
    "Xavi9LTX2Extend": {"overlap": 9},
    "Xavi9VideoJoin": {"overlap": 9},
    "Xavi9GenerateVideo": {"model.width": 256, "model.height": 160, "model.frames": 17},  # it is shipped with LTX-2
    "Xavi9SVDImageToVideo": {"width": 256, "height": 144, "frames": 25, "steps": 2},
}


def lowered(prompt: dict) -> dict:
    """A copy of an API graph whose local models make a small video: the inputs in SIZES replaced, the rest kept."""
    prompt = copy.deepcopy(prompt)
    classes = {node["class_type"] for node in prompt.values()}
    sizes = dict(SIZES)
    upscale = sizes.pop("Xavi9LTX2Upscale")
    if "Xavi9LTX2Upscale" in classes:
        sizes["Xavi9LTX2Sampler"] = upscale
    for node in prompt.values():
        node["inputs"] |= sizes.get(node["class_type"], {})
    return prompt


# Under models/: which function writes it, with what.
FILES = {
    "checkpoints/ltx-2-19b-distilled-fp8.safetensors": ("ltx2", "write_checkpoint", {}),
    "checkpoints/ltx-2-19b-dev-fp8.safetensors": ("ltx2", "write_checkpoint", {"kind": "dev"}),
    "checkpoints/ltx-2-19b-distilled.safetensors": ("ltx2", "write_checkpoint", {"weights": "bf16"}),
    "checkpoints/ltx-2.3-22b-distilled-fp8.safetensors": ("ltx2", "write_checkpoint", {"version": "2.3"}),
    "checkpoints/ltx-2.3-22b-dev-fp8.safetensors": ("ltx2", "write_checkpoint", {"version": "2.3", "kind": "dev"}),
    "text_encoders/gemma_3_12B_it_fp8_scaled.safetensors": ("gemma", "write_file", {"weights": "fp8"}),
    "text_encoders/gemma-3-12b-it": ("gemma", "write_folder", {}),
    "latent_upscale_models/ltx-2-spatial-upscaler-x2-1.0.safetensors": ("ltx2", "write_upscaler", {}),
    "latent_upscale_models/ltx-2.3-spatial-upscaler-x2-1.1.safetensors": (
        "ltx2", "write_upscaler", {"version": "2.3"}),
    "loras/ltx2-test-lora.safetensors": ("ltx2", "write_lora", {}),
    "diffusers/LTX-2": ("ltx2", "write_folder", {}),
    "checkpoints/svd_xt.safetensors": ("svd", "write_checkpoint", {}),
    "diffusers/stable-video-diffusion-img2vid-xt": ("svd", "write_folder", {"weights": ("fp32", "fp16")}),
}


def put_models(models: Path) -> None:
    """Writes the tiny models that are missing under models, ComfyUI's folder of that name; each whole or not at all.

    Raises subprocess.CalledProcessError if the process that writes them fails.
    """
    missing = [name for name in FILES if not (models / name).exists()]
    if missing and importlib.util.find_spec("comfy") is None:
        # The files are built from ComfyUI's classes, whose arguments a process sets once, before importing them.
        subprocess.run([sys.executable, __file__, models], check=True)
        return
    for name in missing:
        _put(models, name)


def _put(models: Path, name: str) -> None:
    module, function, options = FILES[name]
    (models / name).parent.mkdir(parents=True, exist_ok=True)
    # Not in the file's own folder: what a killed run leaves there, ComfyUI would offer as a model.
    with tempfile.TemporaryDirectory(dir=models, prefix=".tiny-") as temporary:
        new = Path(temporary) / Path(name).name
        getattr(importlib.import_module(f"tiny.{module}"), function)(new, **options)
        os.replace(new, models / name)


def _main() -> None:
    sys.path[:1] = [str(Path(__file__).resolve().parents[1])]
    from setup_host import host_path

    sys.path.insert(0, str(host_path()))
    import utils  # noqa: F401  ComfyUI 0.24 puts comfy/ in front, whose utils.py would hide this one
    from comfy.cli_args import args

    args.cpu = True
    put_models(Path(sys.argv[1]))


if __name__ == "__main__":
    _main()
