"""What a running node tells the editor, and how it learns that the user wants it to stop."""

from collections.abc import Callable

from comfy.model_management import (
    InterruptProcessingException,
    processing_interrupted,
    throw_exception_if_processing_interrupted,
)
from comfy.utils import ProgressBar
from server import PromptServer


def stop_if_interrupted():
    """Raise ComfyUI's interrupt (a BaseException) when the user has asked for it, from whatever thread.

    The request itself is left standing, so that a synchronous node of the same prompt sees it too.
    """
    if processing_interrupted():
        raise InterruptProcessingException()


def frame_steps(total: int) -> Callable[[int], None]:
    """A callback for the node that is executing: give it the frames done; it moves the bar and raises the interrupt."""
    bar = ProgressBar(total)

    def step(done: int):
        throw_exception_if_processing_interrupted()
        bar.update_absolute(done)

    return step


def show_text(hidden, text: str):
    """Write `text` on the node that `hidden` (its io.Hidden.unique_id and dynprompt) belongs to."""
    # Inside an expanded node the inner id is invisible; the editor knows the outer one only.
    node_id = hidden.dynprompt.get_display_node_id(hidden.unique_id)
    PromptServer.instance.send_progress_text(text, node_id)
