"""What travels between the LTX-2 nodes: the files of a model, opened when they are needed."""

from functools import partial

from ..host import memory, paths


def open_model(checkpoint: str, weights: str):
    # diffusers takes seconds to import, and nobody should wait for it at the start of ComfyUI.
    from .checkpoint import LTX2

    return LTX2(checkpoint, weights)


class LTX2Model(memory.Handle):
    """What LTX2_MODEL is: files and choices. The open model is looked up when it is needed."""

    def __init__(self, checkpoint: str, text_encoder: str, weights: str, loras: tuple[tuple[str, float], ...] = ()):
        super().__init__((*memory.identity(checkpoint), weights), partial(open_model, checkpoint, weights))
        self.checkpoint, self.text_encoder, self.weights, self.loras = checkpoint, text_encoder, weights, loras

    def with_lora(self, file: str, strength: float) -> "LTX2Model":
        return LTX2Model(self.checkpoint, self.text_encoder, self.weights, (*self.loras, (file, strength)))

    def patched(self):
        """The open model with this handle's LoRAs on, and no others."""
        model = self.model
        model.use_loras(self.loras)
        return model


def text_encoders() -> list[str]:
    inside = paths.model_names("diffusers", "config.json")
    return paths.model_names("text_encoders", "config.json") + [it for it in inside if it.endswith("text_encoder")]


def downloads(name: str) -> str:
    """Which files docker/download_models.sh has to get where this one is missing."""
    if "2.3" not in name:
        return "ltx2"
    return "ltx23-dev" if "dev" in name else "ltx23"


def checkpoint_path(name: str) -> str:
    return paths.checkpoint_path(name, downloads(name))


def upscaler_path(name: str) -> str:
    return paths.model_path("latent_upscale_models", name, downloads(name))


def text_encoder_path(name: str) -> str:
    return paths.model_path(("text_encoders", "diffusers"), name, "ltx2")
