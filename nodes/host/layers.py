"""Models of diffusers and transformers on the host's layers: cast per call, quantized weights kept, offloaded in part.

The weights stay in the mapped file for as long as they are not on another device.
"""

import logging
import os
from functools import cache
from types import SimpleNamespace

import comfy.ops
import comfy.quant_ops
import comfy.utils
import torch
from comfy import model_management
from comfy.ldm.modules.attention import optimized_attention as attention

from ..errors import ModelFileBroken

__all__ = ["MARKER", "Mapped", "attention", "compute_dtype", "fill", "place_strays", "quantize", "read"]

log = logging.getLogger(__name__)

MARKER = ".comfy_quant"
LAYERS = {
    getattr(torch.nn, name): getattr(comfy.ops.manual_cast, name)
    for name in (
        "Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "LayerNorm", "GroupNorm", "RMSNorm", "Embedding",
    )
}  # fmt: skip


def read(path: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a .safetensors file, mapped, and its metadata, as the host reads them.

    What marks FP8 layers (metadata, or the older `scaled_fp8` tensor) has become the host's own marker,
    `<layer>.comfy_quant`. Raises ModelFileBroken.
    """
    log.info("Opening %s", path)
    try:
        tensors, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
        return comfy.utils.convert_old_quants(tensors, metadata=metadata or {})
    except Exception as error:
        # safetensors has an error class of its own, the host makes ValueErrors of several lines.
        reason = " ".join(str(error).split())
        raise ModelFileBroken(file=path, megabytes=os.path.getsize(path) / 1e6, reason=reason[:300]) from error


def compute_dtype(weights: torch.dtype, half: torch.dtype = torch.bfloat16) -> torch.dtype:
    """What the host multiplies in on its device, for weights of this dtype: `half` where it can, else float32."""
    device = model_management.get_torch_device()
    supported = [half, torch.float32]
    return model_management.unet_manual_cast(weights, device, supported) or weights


class Mapped:
    """A module whose parameters come from a mapped file: back on the CPU they are the file again, not a copy."""

    flow: torch.dtype | None = None

    def loaded_dtype(self, value: torch.Tensor) -> torch.dtype:
        """A float32 weight of a layer takes on the device what flows through it: each call would cast it to that."""
        return self.flow if self.flow and value.dtype == torch.float32 else value.dtype

    def to(self, device):
        for it in self.modules():
            place_own(it, torch.device(device))
        return self


@cache
def mapped_class(base: type, root: bool = False) -> type:
    # transformers looks up what a model can record by the full name of its class.
    extra = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    if root:
        # A model's dtype is what flows through it; the file's is the layers' business.
        extra["dtype"] = property(lambda self: self.compute_dtype)
    return type(base.__name__, (Mapped, base), extra)


def place_strays(module: torch.nn.Module, device: torch.device):
    """Move what the host leaves behind when it loads a model in part: whatever is not in one of its layers."""
    for it in module.modules():
        if not hasattr(it, "comfy_cast_weights"):
            place_own(it, device)


def place_own(module: torch.nn.Module, device: torch.device):
    """Move to `device` what belongs to this module itself and is not there."""
    for name, value in [*module._parameters.items(), *module._buffers.items()]:
        if value is None or value.device == device:
            continue
        there = module.mapped[name] if device.type == "cpu" else value.to(device, module.loaded_dtype(value))
        if name in module._buffers:
            module._buffers[name] = there
        elif device.type == "cpu":
            module._parameters[name] = there
        else:
            # A new one: torch forbids setting the data of a tensor from outside of inference_mode inside it.
            module._parameters[name] = torch.nn.Parameter(there, requires_grad=False)


def quantized_layers(dtype: torch.dtype, full_precision: bool):
    """The host's layers for quantized weights; `full_precision` multiplies in `dtype` even where FP8 would do."""
    config = SimpleNamespace(quant_config={"mixed_ops": True})
    layers = comfy.ops.pick_operations(
        dtype, dtype, load_device=model_management.get_torch_device(), model_config=config
    )
    return layers if not full_precision else comfy.ops.mixed_precision_ops(
        config.quant_config, dtype, full_precision_mm=True, disabled=layers._disabled
    )


@cache
def say_dequantized(dtype: torch.dtype):
    """In the log, once."""
    log.info("FP4 weights: this device does not multiply in FP4, so each layer computes in %s of them.", dtype)


def quantize(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """An [out, in] weight as FP8 E4M3 with one scale, under the suffixes of a file's names."""
    layout = comfy.quant_ops.QUANT_ALGOS["float8_e4m3fn"]["comfy_tensor_layout"]
    made = comfy.quant_ops.QuantizedTensor.from_float(weight, layout, scale="recalculate")
    marker = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    return {".weight": made._qdata, ".weight_scale": made._params.scale.float(), MARKER: marker}


def fill(
    module: torch.nn.Module,
    tensors: dict[str, torch.Tensor],
    dtype: torch.dtype,
    *,
    buffers: dict[str, torch.Tensor] = {},
    full_precision: bool = False,
) -> torch.nn.Module:
    """Put `tensors`, by the module's own names, into a module that was built on the meta device.

    Its layers become the host's; layers with a `.comfy_quant` marker keep their quantized weight. dtype is what flows
    through the module. What is outside of layers (tables, some norms, filters) is cast to it, as diffusers does on
    loading.
    buffers: the non-persistent ones, which no file holds. Read and fill inside torch.inference_mode, as the host does:
    FP8 weights from outside cannot be patched inside. Raises RuntimeError when names or shapes do not fit, or a buffer
    is left without a value: check before.
    """
    # Files hold bfloat16 beside FP8; the layer casts that to what flows.
    quantized = any(name.endswith(MARKER) for name in tensors)
    kinds = quantized_layers(torch.bfloat16, full_precision) if quantized else None
    if quantized and "nvfp4" in kinds._disabled and any(name.endswith("weight_scale_2") for name in tensors):
        say_dequantized(dtype)
    for name, old in list(module.named_modules()):
        if name + MARKER in tensors:
            if isinstance(old, torch.nn.Embedding):
                new = kinds.Embedding(old.num_embeddings, old.embedding_dim, device="meta")
            else:
                new = kinds.Linear(old.in_features, old.out_features, old.bias is not None, device="cpu")
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, new)
        elif type(old) in LAYERS:
            old.__class__ = LAYERS[type(old)]
            old.weight_function, old.bias_function = [], []
            if not hasattr(old, "bias"):
                old.bias = None
    module.load_state_dict(dict(tensors), strict=True, assign=True)
    module.requires_grad_(False)
    for name, value in buffers.items():
        parent, _, child = name.rpartition(".")
        module.get_submodule(parent)._buffers[child] = value
    for it in module.modules():
        if not hasattr(it, "comfy_cast_weights"):
            for name, value in it._parameters.items():
                if value is not None and value.dtype != dtype and value.is_floating_point():
                    it._parameters[name] = torch.nn.Parameter(value.to(dtype), requires_grad=False)
            for name, value in it._buffers.items():
                if value is not None and value.dtype != dtype and value.is_floating_point():
                    it._buffers[name] = value.to(dtype)
        it.mapped = {**it._parameters, **it._buffers}
        if type(it) in LAYERS.values():
            it.flow = dtype
        if it is module or it.mapped:
            it.__class__ = mapped_class(type(it), root=it is module)
    if empty := [name for name, value in [*module.named_parameters(), *module.named_buffers()] if value.is_meta]:
        raise RuntimeError(f"{type(module).__name__} has no values for {empty}")
    module.compute_dtype = dtype
    return module.eval()
