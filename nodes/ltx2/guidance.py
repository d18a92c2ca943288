"""Guidance beyond the prompt, for the dev schedule: STG, modality guidance, rescaling; picture and sound apart."""

from dataclasses import asdict, dataclass

from comfy_api.latest import io

from ..checks import check_number, check_numbers

CATEGORY = "Xavi9Videos/LTX-2"
GUIDANCE = io.Custom("LTX2_GUIDANCE")
# The block whose self-attention STG passes over (Lightricks/LTX-2, ltx-pipelines, constants.py).
OWN_BLOCK = {"2.0": 29, "2.3": 28}
# diffusers takes the picture's value where the sound's is 0. This is added to a sum without a trace.
NEARLY_ZERO = 1e-30


@dataclass(frozen=True)
class Guidance:
    """The numbers as Lightricks has them by default. stg_block: -1 is the model's own."""

    guidance_scale: float = 3.0
    stg_scale: float = 1.0
    modality_scale: float = 3.0
    rescale: float = 0.7
    audio_guidance_scale: float = 7.0
    audio_stg_scale: float = 1.0
    audio_modality_scale: float = 3.0
    audio_rescale: float = 0.7
    stg_block: int = -1

    @property
    def more_passes(self) -> bool:
        """Whether a step computes more than the two prompts."""
        return max(self.stg_scale, self.audio_stg_scale) > 0 or max(self.modality_scale, self.audio_modality_scale) > 1

    def inputs(self, version: str, blocks: int) -> dict:
        """As diffusers' pipelines take them. blocks: how many the transformer has. Raises OutOfRange."""
        check_number("stg_block", self.stg_block, -1, blocks - 1)
        block = min(OWN_BLOCK[version], blocks - 1) if self.stg_block < 0 else int(self.stg_block)
        return {
            "guidance_scale": self.guidance_scale,
            "audio_guidance_scale": self.audio_guidance_scale,
            "stg_scale": self.stg_scale,
            "audio_stg_scale": self.audio_stg_scale or (NEARLY_ZERO if self.stg_scale else 0.0),
            "modality_scale": self.modality_scale,
            "audio_modality_scale": self.audio_modality_scale,
            "guidance_rescale": self.rescale,
            "audio_guidance_rescale": self.audio_rescale or (NEARLY_ZERO if self.rescale else 0.0),
            "spatio_temporal_guidance_blocks": [block] if max(self.stg_scale, self.audio_stg_scale) > 0 else None,
        }


def scale(name: str, lowest: float, highest: float, tooltip: str) -> io.Float.Input:
    """An input of this name in Guidance, with its default."""
    default = asdict(Guidance())[name]
    return io.Float.Input(
        name, default=default, min=lowest, max=highest, step=0.05, optional=True, advanced=True, tooltip=tooltip
    )


class LTX2Guidance(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9LTX2Guidance",
            display_name="LTX-2 Guidance",
            category=CATEGORY,
            description="More guidance for the dev schedule, set as Lightricks does it: firmer structure, and sound "
            "that fits the picture. Each step computes four times instead of twice.",
            search_aliases=["stg", "spatio temporal guidance", "cfg", "modality guidance", "rescale", "guider"],
            inputs=[
                scale("guidance_scale", 1.0, 20.0, "How closely the picture follows the prompt. 1 is off."),
                scale(
                    "stg_scale", 0.0, 10.0,
                    "Away from what the model makes when one block does not look around: firmer structure and motion. "
                    "0 is off.",
                ),
                scale(
                    "modality_scale", 1.0, 10.0,
                    "Away from what the picture would be without its sound: both fit better. 1 is off.",
                ),
                scale(
                    "rescale", 0.0, 1.0,
                    "How much of the contrast that guidance adds is taken back. 0 is none; too little burns colours.",
                ),
                scale("audio_guidance_scale", 1.0, 20.0, "How closely the sound follows the prompt. 1 is off."),
                scale("audio_stg_scale", 0.0, 10.0, "As stg_scale, for the sound. 0 is off."),
                scale("audio_modality_scale", 1.0, 10.0, "As modality_scale, for the sound. 1 is off."),
                scale("audio_rescale", 0.0, 1.0, "As rescale, for the sound. 0 is none."),
                io.Int.Input(
                    "stg_block",
                    default=-1,
                    min=-1,
                    max=47,
                    optional=True,
                    advanced=True,
                    tooltip="The block that STG passes over. -1 is the model's own: 29, or 28 with LTX-2.3.",
                ),
            ],
            outputs=[GUIDANCE.Output("guidance", tooltip="To LTX-2 Sampler, whose own guidance scale counts no more.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, **given) -> io.NodeOutput:
        found = asdict(Guidance()) | given
        check_numbers(cls, found)
        return io.NodeOutput(Guidance(**found))
