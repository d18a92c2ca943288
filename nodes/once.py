"""What a denoising run computes once: results that are the same at each of its steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class Run:
    """What one run keeps: a set of results for each text or image that the model is called with.

    It is known by its tensor, held here, since an address is used again after a tensor is gone.
    """

    def __init__(self):
        self.contexts: list[tuple[torch.Tensor, dict]] = []
        self.results: dict = {}
        self.changed: list[torch.nn.Module] = []

    def begin(self, module, args, inputs):
        """A forward pre-hook of the model."""
        context = inputs["encoder_hidden_states"]
        found = next((results for it, results in self.contexts if it is context), None)
        if found is None:
            found = {}
            self.contexts.append((context, found))
        self.results = found

    def once(self, module: torch.nn.Module, compute: Callable):
        """What `compute` gave for this module and this context when it was first asked."""
        if module not in self.results:
            self.results[module] = compute()
        return self.results[module]

    def keep(self, module: torch.nn.Module):
        """Have the module answer with its first result."""
        compute = module.forward
        self.replace(module, lambda *args, **inputs: self.once(module, lambda: compute(*args, **inputs)))

    def replace(self, module: torch.nn.Module, forward: Callable):
        """Have the module answer with `forward`, for the time of the run."""
        module.forward = forward
        self.changed.append(module)


@contextmanager
def run_of(model) -> Iterator[Run]:
    """Inside the block, what the Run keeps and replaces holds, and attention processors may be set on the model."""
    run = Run()
    processors = dict(model.attn_processors)
    hook = model.register_forward_pre_hook(run.begin, with_kwargs=True)
    try:
        yield run
    finally:
        for module in run.changed:
            del module.forward
        hook.remove()
        model.set_attn_processor(processors)
