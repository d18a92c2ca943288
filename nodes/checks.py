"""What nodes of several rooms check, before a prompt is queued or when it runs."""

from collections.abc import Callable, Iterable, Mapping

import torch
from comfy_api.latest import io

from .errors import AudioNotUsable, EmptyPrompt, Failure, NotFinite, NotOneOf, OutOfRange


def said(check: Callable, *values) -> bool | str:
    """What validate_inputs answers: True, or the words of the failure that `check` raises."""
    try:
        check(*values)
    except Failure as failure:
        return str(failure)
    return True


def check_prompt(prompt: str | None):
    """Raise EmptyPrompt; None stands for a linked prompt, whose text is checked when the node runs."""
    if prompt is not None and not prompt.strip():
        raise EmptyPrompt()


def check_numbers(node: type[io.ComfyNode], given: Mapping[str, object]):
    """Raise OutOfRange where a number is not what the node's schema allows: the host does not check linked ones."""
    for it in node.define_schema().inputs:
        if isinstance(it, io.Int.Input | io.Float.Input):
            check_number(it.id, given[it.id], it.min, it.max)


def check_number(name: str, given: float, lowest: float, highest: float):
    """Raise OutOfRange."""
    if not isinstance(given, int | float) or not lowest <= given <= highest:
        raise OutOfRange(name=name, given=given, lowest=lowest, highest=highest)


def check_choice(name: str, given: object, allowed: Iterable[str]):
    """Raise NotOneOf."""
    if given not in (allowed := list(allowed)):
        raise NotOneOf(name=name, given=given, allowed=", ".join(allowed))


def check_audio(audio: object):
    """Raise AudioNotUsable for what is not one clip [1, 1 to 8 channels, samples] of the host's AUDIO."""
    try:
        waveform, rate = audio["waveform"], audio["sample_rate"]
        batch, channels, _ = waveform.shape
    except (TypeError, LookupError, AttributeError) as error:
        raise AudioNotUsable(reason=f"it is no AUDIO but {audio!r}") from error
    except ValueError:
        batch = channels = 0
    if batch != 1:
        raise AudioNotUsable(reason=f"its shape is {tuple(waveform.shape)}, not [1, channels, samples]")
    if not 1 <= channels <= 8:
        raise AudioNotUsable(reason=f"it has {channels} channels")
    if not 8000 <= rate <= 384_000:
        raise AudioNotUsable(reason=f"its sample rate is {rate} Hz")


def check_finite(values: torch.Tensor, what: str):
    """Raise NotFinite for NaN and infinite values. what: where they are, in words."""
    if not torch.isfinite(values).all():
        raise NotFinite(what=what)
