"""The shipped workflows, described: make_workflows.py builds them in the editor. Their notes: workflow_notes.py."""

from dataclasses import dataclass, field

from workflow_notes import (
    CLIP_NOTE,
    COSMOS_NOTE,
    DEV23,
    GEMMA,
    GENERATE_NOTE,
    IMAGE_NOTE,
    LTX2,
    LTX2_IMAGE_NOTE,
    LTX2_STAGES_NOTE,
    LTX2_TEXT_NOTE,
    LTX23,
    LTX23_DEV_NOTE,
    LTX23_EXTEND_NOTE,
    LTX23_KEYFRAMES_NOTE,
    LTX23_SOUND_NOTE,
    SVD,
    SVD_NOTE,
    UPSCALER,
    UPSCALER23,
)


@dataclass(frozen=True)
class Node:
    """values are by widget name; a widget that is not named keeps its default. Both sizes must fit both renderers.

    models: what model() makes, of the files that the values name; the editor offers to download those that are missing.
    """

    type: str
    pos: tuple[int, int]
    size: tuple[int, int]
    values: dict = field(default_factory=dict)
    title: str = ""
    models: tuple[dict, ...] = ()


@dataclass(frozen=True)
class Workflow:
    """id is a random uuid, for ever. Nodes are numbered from 1 in their order.

    A link is ("node.output", "node.input"). form: the widgets, as ("node", "widget"), that the editor shows as a plain
    form instead of the graph, with the results of the last node.
    """

    id: str
    nodes: dict[str, Node]
    links: list[tuple[str, str]]
    form: list[tuple[str, str]] = field(default_factory=list)

    def extra(self) -> dict:
        if not self.form:
            # Without a stored view the editor shows the whole graph, whatever the size of its window.
            return {}
        numbers = {name: number for number, name in enumerate(self.nodes, 1)}
        inputs = [[numbers[name], widget, *({"height": 220},) * (widget == "prompt")] for name, widget in self.form]
        # It fits the graph to its window on loading only, where a form hides that.
        view = {"scale": 0.8, "offset": [110, 160]}
        return {"ds": view, "linearMode": True, "linearData": {"inputs": inputs, "outputs": [len(numbers)]}}


@dataclass(frozen=True)
class Blueprint:
    """A node made of others: subgraphs/NAME.json. asked and given: its inputs and outputs, as "node.input" and such."""

    id: str
    description: str
    nodes: dict[str, Node]
    links: list[tuple[str, str]]
    asked: list[str]
    given: list[str]


def ltx2_loader(pos: tuple[int, int], checkpoint: dict = LTX2) -> Node:
    return Node("Xavi9LTX2Loader", pos, (440, 130), {"checkpoint": checkpoint["name"], "text_encoder": GEMMA["name"]},
                models=(checkpoint, GEMMA))


# The text is read before any LoRA, which changes nothing about it.
LTX2_LINKS = [("loader.model", "text.model"), ("loader.model", "sampler.model"), ("loader.model", "decode.model"),
              ("text.conditioning", "sampler.conditioning"), ("decode.video", "save.video")]
LTX2_STAGES = [("loader.model", "upscale.model"), ("text.conditioning", "upscale.conditioning"),
               ("sampler.latents", "upscale.latents"), ("upscale.latents", "decode.latents")]

WORKFLOWS = {
    "cosmos_text2world": Workflow(
        id="2448b1c3-20a7-4fa6-bc9c-9ca9cd4a3456",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 310), {"text": COSMOS_NOTE}, title="Start here"),
            "cosmos": Node("Xavi9CosmosText2World", (500, 0), (500, 600), {
                "prompt": "Low drone shot over desert dunes at sunrise. A six-wheeled rover climbs a steep crest, its "
                          "wheels sinking and pushing small avalanches of sand downhill. The camera drifts sideways, "
                          "wind lifts dust off the ridges, long shadows, warm rim light, realistic physics."}),
            "save": Node("Xavi9VideoSave", (1060, 0), (480, 520)),
        },
        links=[("cosmos.video", "save.video")]),
    "cosmos_image2world": Workflow(
        id="2b742e94-5c6c-4d8a-8946-f57881c9387a",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 340), {"text": IMAGE_NOTE}, title="Start here"),
            "image": Node("LoadImage", (0, 600), (440, 400), {"image": "example.png"}),
            "cosmos": Node("Xavi9CosmosVideo2World", (500, 0), (500, 600), {
                "prompt": "The scene comes alive: everything in it that can move begins to move, gently and at its "
                          "natural pace. The camera moves slowly forward, the light stays the same, realistic physics."
            }),
            "save": Node("Xavi9VideoSave", (1060, 0), (480, 520)),
        },
        links=[("image.IMAGE", "cosmos.image"), ("cosmos.video", "save.video")]),
    "cosmos_video2world": Workflow(
        id="903cc1db-efeb-4e49-9acc-9171242d0998",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 340), {"text": CLIP_NOTE}, title="Start here"),
            "clip": Node("LoadVideo", (0, 600), (440, 400), {"file": "clip.mp4"}),
            "cosmos": Node("Xavi9CosmosVideo2World", (500, 0), (500, 600), {
                "prompt": "The shot goes on without a cut: the same place and the same light, every movement continues "
                          "at its pace. The camera keeps its path, realistic physics."}),
            "save": Node("Xavi9VideoSave", (1060, 0), (480, 520)),
        },
        links=[("clip.VIDEO", "cosmos.video"), ("cosmos.video", "save.video")]),
    "ltx2_text_to_video": Workflow(
        id="199a4494-c656-4d5b-becc-843df96e2e4e",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 330), {"text": LTX2_TEXT_NOTE}, title="Start here"),
            "loader": ltx2_loader((500, 0)),
            "text": Node("Xavi9LTX2TextEncode", (500, 240), (440, 380), {
                "prompt": "A lighthouse on a black rock at dusk, in a storm. Waves break against the foot of the tower "
                          "and throw spray into the beam of its lamp, which sweeps slowly across the frame. The camera "
                          "rises past wet stone towards the light; cold blue sea, warm lamp, fine rain, film grain. "
                          "Heavy surf rolls and crashes, wind howls around the tower, and far away a foghorn sounds "
                          "twice."}),
            "sampler": Node("Xavi9LTX2Sampler", (1000, 0), (400, 500)),
            "decode": Node("Xavi9LTX2Decode", (1000, 620), (400, 100)),
            "save": Node("Xavi9VideoSave", (1460, 0), (480, 520)),
        },
        links=[*LTX2_LINKS, ("sampler.latents", "decode.latents")]),
    "ltx2_image_to_video": Workflow(
        id="18fd5a06-61dc-4122-b51f-f3673a1f2546",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 360), {"text": LTX2_IMAGE_NOTE}, title="Start here"),
            "loader": ltx2_loader((500, 0)),
            "text": Node("Xavi9LTX2TextEncode", (500, 240), (440, 380), {
                "prompt": "The scene comes alive: everything in it that can move begins to move, gently and at its "
                          "natural pace. The camera moves slowly forward, the light stays the same, film grain. The "
                          "sounds of the place are heard, close and quiet; no music, and nobody speaks."}),
            "image": Node("LoadImage", (500, 720), (440, 400), {"image": "example.png"}),
            "sampler": Node("Xavi9LTX2Sampler", (1000, 0), (400, 500)),
            "decode": Node("Xavi9LTX2Decode", (1000, 620), (400, 100)),
            "save": Node("Xavi9VideoSave", (1460, 0), (480, 520)),
        },
        links=[*LTX2_LINKS, ("image.IMAGE", "sampler.first_image"), ("sampler.latents", "decode.latents")]),
    "ltx2_two_stage_1080p": Workflow(
        id="534d0181-1824-4601-a3fe-835872597d54",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 360), {"text": LTX2_STAGES_NOTE}, title="Start here"),
            "loader": ltx2_loader((500, 0)),
            "text": Node("Xavi9LTX2TextEncode", (500, 240), (440, 380), {
                "prompt": "A night market in the rain, close on a cook behind a steaming wok. Flames leap up as he "
                          "tosses the noodles; red lanterns shine in the wet street behind him. The camera circles "
                          "slowly to the left. He looks up, smiles and says: \"Two minutes, my friend.\" Oil "
                          "sizzles, rain patters on the awning, and a crowd murmurs."}),
            "sampler": Node("Xavi9LTX2Sampler", (1000, 0), (400, 500), {"width": 960, "height": 540}),
            "upscale": Node("Xavi9LTX2Upscale", (1460, 0), (400, 170), {"upscaler": UPSCALER["name"]},
                            models=(UPSCALER,)),
            "decode": Node("Xavi9LTX2Decode", (1460, 300), (400, 100)),
            "save": Node("Xavi9VideoSave", (1920, 0), (480, 520)),
        },
        links=[*LTX2_LINKS, *LTX2_STAGES]),
    "ltx23_keyframes": Workflow(
        id="095a4a14-b1fc-42a9-b44f-e81b1bac35ae",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 360), {"text": LTX23_KEYFRAMES_NOTE}, title="Start here"),
            "loader": ltx2_loader((500, 0), LTX23),
            "text": Node("Xavi9LTX2TextEncode", (500, 240), (440, 380), {
                "prompt": "One calm shot of the same place. The light moves slowly across it as the day passes; steam "
                          "rises and thins, shadows turn around the objects, reflections glide. The camera pushes in "
                          "by a hand's breadth and stays. Soft room tone, a distant street, a spoon that touches "
                          "porcelain once; no music, and nobody speaks."}),
            "first": Node("LoadImage", (500, 820), (300, 360), {"image": "example.png"}, title="First picture"),
            "middle": Node("LoadImage", (840, 820), (300, 360), {"image": "example.png"}, title="Picture between"),
            "last": Node("LoadImage", (1180, 820), (300, 360), {"image": "example.png"}, title="Last picture"),
            "keyframe": Node("Xavi9LTX2Keyframe", (1520, 820), (360, 130), {"frame": 60, "strength": 0.9}),
            "sampler": Node("Xavi9LTX2Sampler", (1000, 0), (400, 500)),
            "decode": Node("Xavi9LTX2Decode", (1000, 620), (400, 100)),
            "save": Node("Xavi9VideoSave", (1540, 0), (480, 520)),
        },
        links=[*LTX2_LINKS, ("first.IMAGE", "sampler.first_image"), ("last.IMAGE", "sampler.last_image"),
               ("middle.IMAGE", "keyframe.image"), ("keyframe.keyframes", "sampler.keyframes"),
               ("sampler.latents", "decode.latents")]),
    "ltx23_sound_to_video": Workflow(
        id="379dbcd8-94d6-4879-895e-3a41180bd5ab",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 360), {"text": LTX23_SOUND_NOTE}, title="Start here"),
            "loader": ltx2_loader((500, 0), LTX23),
            "text": Node("Xavi9LTX2TextEncode", (500, 240), (440, 380), {
                "prompt": "Everything in the picture moves to the sound: with each beat, each word and each breath of "
                          "it. What makes the sound is seen making it, in time with it. The camera holds still, then "
                          "leans in a little; the light stays the same."}),
            "image": Node("LoadImage", (500, 720), (440, 400), {"image": "example.png"}),
            "sound": Node("LoadAudio", (1000, 720), (400, 140), {"audio": "sound.wav"}),
            "sampler": Node("Xavi9LTX2Sampler", (1000, 0), (400, 500), {"width": 640, "height": 360}),
            "upscale": Node("Xavi9LTX2Upscale", (1460, 0), (400, 170), {"upscaler": UPSCALER23["name"]},
                            models=(UPSCALER23,)),
            "decode": Node("Xavi9LTX2Decode", (1460, 300), (400, 100)),
            "save": Node("Xavi9VideoSave", (1920, 0), (480, 520)),
        },
        links=[*LTX2_LINKS, ("image.IMAGE", "sampler.first_image"), ("sound.AUDIO", "sampler.audio"),
               *LTX2_STAGES]),
    "ltx23_extend_video": Workflow(
        id="9b1dc61d-b0a2-4704-9fe5-f8139549c134",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 360), {"text": LTX23_EXTEND_NOTE}, title="Start here"),
            "loader": ltx2_loader((500, 0), LTX23),
            "text": Node("Xavi9LTX2TextEncode", (500, 240), (440, 380), {
                "prompt": "The shot goes on without a cut: the same place and the same light, every movement continues "
                          "at its pace. The camera keeps its path. What is heard goes on as well, close and quiet; no "
                          "music, and nobody speaks."}),
            "clip": Node("LoadVideo", (500, 720), (440, 400), {"file": "clip.mp4"}),
            "extend": Node("Xavi9LTX2Extend", (1000, 720), (400, 130)),
            "sampler": Node("Xavi9LTX2Sampler", (1000, 0), (400, 500), {"width": 960, "height": 540}),
            "decode": Node("Xavi9LTX2Decode", (1460, 0), (400, 100)),
            "join": Node("Xavi9VideoJoin", (1460, 200), (400, 100), {"overlap": 17}),
            "save": Node("Xavi9VideoSave", (1920, 0), (480, 520)),
        },
        links=[*LTX2_LINKS[:-1], ("clip.VIDEO", "extend.video"), ("extend.keyframes", "sampler.keyframes"),
               ("sampler.latents", "decode.latents"), ("clip.VIDEO", "join.first"), ("decode.video", "join.second"),
               ("join.video", "save.video")]),
    "ltx23_dev_guidance": Workflow(
        id="207ef35d-0e38-441b-b92a-ce2514932ee8",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 360), {"text": LTX23_DEV_NOTE}, title="Start here"),
            "loader": ltx2_loader((500, 0), DEV23),
            "text": Node("Xavi9LTX2TextEncode", (500, 240), (440, 380), {
                "prompt": "A glassblower in a dim workshop turns a glowing bubble of glass at the end of his pipe. He "
                          "lifts it, blows, and it swells; orange light runs over his face and the soot-black beams. "
                          "The camera circles him slowly at shoulder height. He says quietly: \"Now it breathes.\" "
                          "The furnace roars low, glass ticks as it cools, a chain clinks.",
                "negative_prompt": "blurry, jittery, distorted hands, melting shapes, oversaturated, watermark, "
                                   "muffled sound, robotic voice"}),
            "guidance": Node("Xavi9LTX2Guidance", (500, 720), (440, 80)),
            "sampler": Node("Xavi9LTX2Sampler", (1000, 0), (400, 500), {"schedule": "dev"}),
            "decode": Node("Xavi9LTX2Decode", (1000, 620), (400, 100)),
            "save": Node("Xavi9VideoSave", (1460, 0), (480, 520)),
        },
        links=[*LTX2_LINKS, ("guidance.guidance", "sampler.guidance"), ("sampler.latents", "decode.latents")]),
    "svd_xt_image_to_video": Workflow(
        id="e7d2d138-1c1a-4e7e-8371-c15b2e25dbe9",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 360), {"text": SVD_NOTE}, title="Start here"),
            "loader": Node("Xavi9SVDLoader", (500, 0), (440, 80), {"model": SVD["name"]}, models=(SVD,)),
            "image": Node("LoadImage", (500, 180), (440, 400), {"image": "example.png"}),
            "svd": Node("Xavi9SVDImageToVideo", (1000, 0), (400, 430)),
            "save": Node("Xavi9VideoSave", (1460, 0), (480, 520)),
        },
        links=[("loader.model", "svd.model"), ("image.IMAGE", "svd.image"), ("svd.video", "save.video")]),
}

WORKFLOWS["generate_video"] = Workflow(
    id="e61cc252-dc69-4fa4-82c9-147356540ca4",
    nodes={
        "note": Node("MarkdownNote", (0, 0), (440, 400), {"text": GENERATE_NOTE}, title="Start here"),
        "video": Node("Xavi9GenerateVideo", (500, 0), (480, 640), {
            "prompt": "A steam locomotive crosses a stone viaduct at first light, white steam rolling over the parapet "
                      "into a valley full of mist. The camera flies beside it and slowly falls back. Warm sun on "
                      "black iron, long shadows, film grain. Wheels clatter over the joints, steam beats in a steady "
                      "rhythm, and the whistle sounds twice across the valley.",
            "model": "LTX-2 (FP8)", "model.checkpoint": LTX2["name"], "model.text_encoder": GEMMA["name"]},
            models=(LTX2, GEMMA)),
        "save": Node("Xavi9VideoSave", (1040, 0), (480, 520)),
    },
    links=[("video.video", "save.video")],
    form=[("video", name) for name in ("prompt", "model", "model.width", "model.height", "model.frames", "model.fps",
                                       "seed")])

LTX2_PARTS = {
    "loader": ltx2_loader((0, 0)),
    "text": Node("Xavi9LTX2TextEncode", (0, 240), (440, 380)),
    "sampler": Node("Xavi9LTX2Sampler", (500, 0), (400, 500)),
    "decode": Node("Xavi9LTX2Decode", (500, 620), (400, 100)),
}
LTX2_ASKED = ["text.prompt", *(f"sampler.{name}" for name in ("width", "height", "frames", "fps", "seed")),
              "loader.checkpoint", "loader.text_encoder"]
LTX2_INSIDE = [*LTX2_LINKS[:-1], ("sampler.latents", "decode.latents")]

BLUEPRINTS = {
    "LTX-2 Text to Video": Blueprint(
        id="2217a1fc-d5de-41f1-b8ce-372a61989d7d",
        description="A text to a video with sound: LTX-2 in FP8, of four nodes that you can open and change.",
        nodes=LTX2_PARTS, links=LTX2_INSIDE, asked=LTX2_ASKED, given=["decode.video"]),
    "LTX-2 Image to Video": Blueprint(
        id="a4039d2c-53a2-4fa7-9cd9-69aaae7f3b37",
        description="A picture set in motion, with sound: LTX-2 in FP8, of four nodes that you can open and change.",
        nodes=LTX2_PARTS, links=LTX2_INSIDE,
        asked=["sampler.first_image", *LTX2_ASKED, "sampler.image_strength"], given=["decode.video"]),
}
