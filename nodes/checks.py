"""What nodes of several rooms check before a prompt is queued."""

from collections.abc import Callable

from .errors import EmptyPrompt, Failure


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
