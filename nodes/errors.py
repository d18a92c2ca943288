"""Every failure that a person can meet.

Each class is one failure: a code (for ever: the editor's translations are keyed by it), the values it was raised with,
an English text (what happened, what was given, what is allowed) and a remedy (what to do).
"""

from typing import ClassVar

from torch import OutOfMemoryError


class Failure(Exception):
    """Base of all. `values` fill the braces of `text` and `remedy`; str() is both, in English, as `what` and `cure`.

    status: the HTTP status of an answer that fails so.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str]
    text: ClassVar[str]
    remedy: ClassVar[str]

    def __init_subclass__(cls):
        # The editor shows an exception's module, which for a pack is its path on the server.
        cls.__module__ = "xavi9videos"

    def __init__(self, **values):
        self.values = values
        self.what = self.text.format(**values)
        self.cure = self.remedy.format(**values)
        super().__init__(f"{self.what} {self.cure}")


class RoomFailed(Failure):
    code = "room_failed"
    text = "Xavi9Videos: the nodes of the room '{room}' are missing, because it could not load ({cause})."
    remedy = "{cure}"


class BadSetting(Failure):
    code = "bad_setting"
    text = "The setting {variable}={value} is not usable: {rule}."
    remedy = "Correct it in the environment or in the pack's .env file, then restart ComfyUI."


class EmptyPrompt(Failure):
    code = "empty_prompt"
    text = "The prompt is empty."
    remedy = "Describe the video that you want in a sentence or two."


class PromptTooLong(Failure):
    code = "prompt_too_long"
    text = "The prompt has {given} {unit}, and {family} takes up to {allowed}."
    remedy = "Shorten it."


class OneOfImageAndVideo(Failure):
    code = "one_of_image_and_video"
    text = "Cosmos Video to World starts from an image or from a video, and it was given {given}."
    remedy = "Connect just one of them: an image to set a still picture in motion, or a video to go on from a clip."


class ImageNotUsable(Failure):
    code = "image_not_usable"
    text = "The image cannot be used: {reason}."
    remedy = (
        "Connect one picture. Of several, choose one with Get Image from Batch, or make them a video with Create Video."
    )


class ImageMissing(Failure):
    code = "image_missing"
    text = "SVD-XT needs an image: it sets a picture in motion, and none is connected."
    remedy = "Connect Load Image to `image`, or another node that makes one picture."


class OutOfRange(Failure):
    status = 400
    code = "out_of_range"
    text = "{name} is {given}; {lowest:.15g} to {highest:.15g} are allowed."
    remedy = "Set {name} to a value in between, or look at what is connected to it."


class NotOneOf(Failure):
    code = "not_one_of"
    text = "{name} is {given!r}; {allowed} are allowed."
    remedy = "Set {name} to one of them, or look at what is connected to it."


class NotFinite(Failure):
    code = "not_finite"
    text = "The model has made values that are no numbers (NaN or infinite) in {what}."
    remedy = (
        "Try another seed or less guidance. If every run ends so, compare the model file's size with the one on its "
        "page; on a GPU also start ComfyUI with --force-fp32."
    )


class NotOffered(Failure):
    code = "not_offered"
    text = "{family} has no {name} {given}; it has {allowed}."
    remedy = "Set {name} to {nearest}, the nearest that it has."


class CosmosNotReady(Failure):
    code = "cosmos_not_ready"
    text = "Cosmos at {url} is not ready: {state}."
    remedy = (
        "Start or restart it with `docker compose restart {service}` and look at `docker compose logs {service}`: a "
        "first start downloads the model and can take more than half an hour. If Cosmos runs elsewhere, set {setting} "
        "to its address; to let nodes wait for a start, set COSMOS_WAIT_SECONDS."
    )


class CosmosFamilyUnknown(Failure):
    code = "cosmos_family_unknown"
    text = "Cosmos at {url} does not tell which model family it serves ({found})."
    remedy = "Set COSMOS_FAMILY to one of {allowed}, then restart ComfyUI."


class CosmosOtherMode(Failure):
    code = "cosmos_other_mode"
    text = "Cosmos at {url} is the container for {served}, and this node needs the one for {wanted}."
    remedy = "Start that container too, set {own_setting} to its address, then restart ComfyUI."


class CosmosTimedOut(Failure):
    code = "cosmos_timed_out"
    text = "Cosmos at {url} did not finish within {limit} seconds."
    remedy = (
        "Please try a shorter video or fewer steps, or raise COSMOS_TIMEOUT_SECONDS. The job is not sent again by "
        "itself: the NIM may still be computing it."
    )


class CosmosRefused(Failure):
    code = "cosmos_refused"
    text = "Cosmos at {url} refused the job (HTTP {status}): {words}"
    remedy = "Change the input that it names and queue again."


class CosmosGuardrail(CosmosRefused):
    code = "cosmos_guardrail"
    text = "Cosmos at {url} blocked the job (HTTP {status}): {words}"
    remedy = (
        "Reword the prompt; words in the negative prompt can trigger the guardrail too, so try to leave it empty."
    )


class CosmosFailed(Failure):
    code = "cosmos_failed"
    text = "Cosmos at {url} failed (HTTP {status}): {words}"
    remedy = "Look at `docker compose logs {service}`; if it does not recover, `docker compose restart {service}`."


class CosmosRedirected(Failure):
    code = "cosmos_redirected"
    text = "The address {url} answers with a redirect (HTTP {status}), which is not followed."
    remedy = "Set {setting} to the address of the NIM itself."


class CosmosNoVideo(Failure):
    code = "cosmos_no_video"
    text = "Cosmos at {url} answered without a video: {words}"
    remedy = "If a guardrail held it back, reword the prompt; otherwise look at `docker compose logs {service}`."


class CosmosBadReply(Failure):
    code = "cosmos_bad_reply"
    text = "The reply of Cosmos at {url} is broken: {reason}."
    remedy = "Nothing was kept. Look at `docker compose logs {service}`, then queue again."


class CosmosConnectionLost(Failure):
    code = "cosmos_connection_lost"
    text = "The connection to Cosmos at {url} broke after {megabytes} MB of the reply ({reason})."
    remedy = (
        "The job is not sent again by itself. See whether the NIM was restarted (`docker compose ps {service}`), then "
        "queue again."
    )


class CosmosReplyTooLarge(Failure):
    code = "cosmos_reply_too_large"
    text = "The reply of Cosmos at {url} is larger than {limit} MB."
    remedy = "Please try a shorter video or a lower resolution, or raise XAVI9_MAX_REPLY_MB."


class DiskFull(Failure):
    code = "disk_full"
    text = "{folder} has too little space for this video: {free:.0f} MB are free, {needed}."
    remedy = "Free some space or save elsewhere, then queue again. Nothing half-written was left."


class CannotWrite(Failure):
    code = "cannot_write"
    text = "The video could not be written to {folder}: {reason}."
    remedy = "Check that the folder exists, is writable and has space, then queue again. Nothing half-written was left."


class BadFilenamePrefix(Failure):
    code = "bad_filename_prefix"
    text = "The filename_prefix {given!r} is not usable: {reason}."
    remedy = "Give a name, or folders and a name, inside ComfyUI's {save_to} folder, such as xavi9videos/video."


class UnknownFormat(Failure):
    code = "unknown_format"
    text = "The format is missing or not known; known are {allowed}."
    remedy = "Set format to one of them."


class UnknownMode(Failure):
    code = "unknown_mode"
    text = "The model is missing or not known; known are {allowed}."
    remedy = "Set model to one of them."


class WrongLink(Failure):
    code = "wrong_link"
    text = "{name} takes {wanted}, and what is connected to it gives {given}."
    remedy = "Connect a node that gives {wanted}, or take the link away."


class EncoderRefused(Failure):
    code = "encoder_refused"
    text = "{format} could not be encoded with {width}x{height} pixels at {rate:g} frames a second: {reason}."
    remedy = "Choose another format, such as mp4-h264, or give the video another size or frame rate."


class RateTooHigh(Failure):
    code = "rate_too_high"
    text = (
        "{format} holds at most {most} frames a second, and the video has {rate:g}: frames would be lost or shown "
        "too long."
    )
    remedy = "Choose another format, such as mp4-h264, or give the video a lower frame rate."


class VideoUnreadable(Failure):
    code = "video_unreadable"
    text = "The video cannot be read: {reason}."
    remedy = "Check that the file is whole and plays elsewhere."


class VideoEmpty(Failure):
    code = "video_empty"
    text = "The video has no frames ({reason})."
    remedy = "Check the node that made it, or the trim before this node."


class AudioNotUsable(Failure):
    code = "audio_not_usable"
    text = "The audio cannot be used: {reason}."
    remedy = "Connect one clip of finite samples, 1 to 8 channels, with a sample rate between 8000 and 384000 Hz."


class ModelFileMissing(Failure):
    code = "model_file_missing"
    text = "The model file {file} is not in {folder}."
    remedy = (
        "Run `bash docker/download_models.sh {model}` in the pack's folder, or put the file there yourself, then press "
        "R in the editor to refresh the lists."
    )


class ModelFileBroken(Failure):
    code = "model_file_broken"
    text = "The model file {file} ({megabytes:.0f} MB) cannot be read; its download may be cut short: {reason}."
    remedy = "Compare its size with the one on its page, and download it again."


class WrongModelFile(Failure):
    code = "wrong_model_file"
    text = "{file} does not fit as {wanted}: {reason}. It looks like {found}."
    remedy = "Choose {wanted} instead, complete and as published."


class WrongTextEncoder(Failure):
    code = "wrong_text_encoder"
    text = "The text encoder {file} gives {given} values per token, and the checkpoint takes {wanted}."
    remedy = "Choose Gemma 3 12B (48 layers of width 3840), the one that LTX-2 was trained with."


class NotEnoughMemory(Failure, OutOfMemoryError):
    # An OutOfMemoryError, so that the host frees its models; the next prompt then works.
    code = "not_enough_memory"
    text = "{what} needs about {needed:.1f} GB of memory, and {free:.1f} GB are free."
    remedy = "Reduce the resolution or frames, or close what else uses the memory ({hint})."


class BadSteps(Failure):
    code = "bad_steps"
    text = "The distilled schedule has {allowed} steps, and steps is {given}."
    remedy = "Set steps to 0 (the schedule's own), or choose the dev schedule with a dev checkpoint."


class KeyframesClash(Failure):
    code = "keyframes_clash"
    text = "Two pictures are to be seen at frame {frame} of the video."
    remedy = (
        "Give each a frame of its own, or take one away: first_image is frame 0, last_image the last one, and LTX-2 "
        "Extend fills as many frames from 0 on as its overlap says."
    )


class ClipTooShort(Failure):
    code = "clip_too_short"
    text = "The video given to LTX-2 Extend has {frames} frames at the new video's rate, and its overlap is {given}."
    remedy = "Set overlap to {allowed}, or connect a longer video."


class OverlapTooLong(Failure):
    code = "overlap_too_long"
    text = "The overlap in LTX-2 Extend is {given} frames, and the new video has {frames}: none would be new."
    remedy = "Set overlap to {allowed} or less, or ask for more frames in LTX-2 Sampler."


class LatentsNotUsable(Failure):
    code = "latents_not_usable"
    text = "The latents cannot be used: {reason}."
    remedy = "Connect the LATENT of LTX-2 Sampler, or of ComfyUI's own LTX-2 nodes with picture and sound together."


class LoRANotUsable(Failure):
    code = "lora_not_usable"
    text = "The LoRA {file} does not fit LTX-2: {reason}."
    remedy = "Choose a LoRA that was trained for this model."


class UserUnknown(Failure):
    status = 401
    code = "user_unknown"
    text = "ComfyUI runs with --multi-user, and the request names no user that it knows."
    remedy = "Choose a user in the editor; in a script, send the header comfy-user with one of the ids at /users."


class FilesNotUsable(Failure):
    code = "files_not_usable"
    text = "ComfyUI cannot read or write its own files: {reason}."
    remedy = "Check that it may read and write its user and output folders; its log has the file."


class VideoUnknown(Failure):
    status = 404
    code = "video_unknown"
    text = "No saved video has this id here: it was deleted, moved or changed, or lies outside ComfyUI's folders."
    remedy = "Load the list of videos again."


class VideoNotDeleted(Failure):
    code = "video_not_deleted"
    text = "The video could not be deleted: {reason}."
    remedy = "Check that ComfyUI may write to its output and user folders, then try again."


class PosterMissing(Failure):
    status = 404
    code = "poster_missing"
    text = "No picture can be taken from {name}."
    remedy = "Check that the file is whole and plays elsewhere."


class WorkflowMissing(Failure):
    status = 404
    code = "workflow_missing"
    text = "{name} holds no workflow."
    remedy = "GIFs cannot hold one, and none is written when ComfyUI runs with --disable-metadata."
