"""The shipped workflows, described: make_workflows.py builds them in the editor."""

from dataclasses import dataclass, field

from setup_host import REPO


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


def model(line: str) -> dict:
    """A model file of docker/models.tsv as the editor wants it described; directory is ComfyUI's, below models."""
    _, directory, repository, path, _, sha256 = line.split("\t")
    return {"name": path.rsplit("/", 1)[-1], "url": f"https://huggingface.co/{repository}/resolve/main/{path}",
            "directory": directory, "hash": sha256, "hash_type": "SHA256"}


# Nothing in backticks: Nodes 2.0 shows code in a note blue on blue.
START = """\
**1. Start Cosmos.** It is a NIM, a container of its own: **nvcr.io/nim/nvidia/cosmos3**. This node looks for it at \
**http://localhost:8000**, or at the address in the environment variable **{setting}**. The first start downloads \
the model and may take more than half an hour. {older}
"""
FIND = """\
**3. Find the video** in ComfyUI's folder **output/xavi9videos**. It is the NIM's own file, not re-encoded, and \
carries this workflow: drop it on the editor to open it again.
"""
T2W_START = START.format(setting="COSMOS_NIM_URL",
                         older="The older Predict1 NIM works too, on x86_64 machines only.")
V2W_START = START.format(setting="COSMOS_VIDEO2WORLD_URL or COSMOS_NIM_URL",
                         older="The older Predict1 NIM works too, on x86_64 machines only: its video2world container.")

COSMOS_NOTE = f"""\
## Text to video with NVIDIA Cosmos

{T2W_START}
**2. Describe the scene and press Run.** Cosmos knows the physical world: say what moves, on what ground, in what \
light, and where the camera is.

- *frames* / *fps* is the length: 121 / 24 is 5 seconds. *resolution* and *aspect_ratio* give the size.
- More *steps* is finer and slower. The same *seed* gives the same video.

{FIND}"""

IMAGE_NOTE = f"""\
## A picture set in motion with NVIDIA Cosmos

{V2W_START}
**2. Choose your picture** in Load Image, **say what happens in it** and press Run. The picture becomes the first frame.

- It is cropped to the shape of *aspect_ratio*, from both sides alike, never squeezed.
- Say what moves and how, and what the camera does; what the picture shows already needs few words.
- *frames* / *fps* is the length: 121 / 24 is 5 seconds.

{FIND}"""

CLIP_NOTE = f"""\
## On from a clip with NVIDIA Cosmos

{V2W_START}
**2. Choose your clip** in Load Video, **say how it goes on** and press Run.

- The clip's beginning counts: the new video starts from its first pictures. Put a *Video Slice* node between to \
start somewhere else.
- It is fitted into the new video's size, on black where the shapes differ, at its frame rate and without sound.
- *frames* / *fps* is the length: 121 / 24 is 5 seconds.

{FIND}"""

TABLE = REPO / "docker" / "models.tsv"
LTX2, GEMMA, UPSCALER, SVD = (
    model(line) for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))

LTX2_START = """\
**1. Get the models.** When one is missing, the editor says so on opening this workflow and has a download button for \
it. In ComfyUI's folder **models** they belong here: {files}. Then press R.
"""
LTX2_FILES = (f"[the checkpoint]({LTX2['url']}), 27 GB, in **checkpoints**; "
              f"[Gemma 3]({GEMMA['url']}), 13 GB, in **text_encoders**")
LTX2_KINDS = """\
*distilled* is the fast checkpoint: 8 steps. With a *dev* one choose the schedule *dev*: 40 steps, ten times as long."""
LOCAL_FIND = """\
**3. Find the video** in ComfyUI's folder **output/xavi9videos**. It carries this workflow: drop it on the editor to \
open it again.
"""

LTX2_TEXT_NOTE = f"""\
## Text to video with sound: LTX-2

{LTX2_START.format(files=LTX2_FILES)}
**2. Describe the scene and press Run.** LTX-2 makes sound too. Say in order what is seen, what the camera does and \
what is heard; what somebody says goes in quotation marks.

- *frames* / *fps* is the length: 121 / 25 is 5 seconds, and 20 seconds are the most.
- Any *width* and *height* will do. More of each takes more time and memory.
- {LTX2_KINDS}

{LOCAL_FIND}"""

LTX2_IMAGE_NOTE = f"""\
## A picture set in motion, with sound: LTX-2

{LTX2_START.format(files=LTX2_FILES)}
**2. Choose your picture** in Load Image, **say what happens in it and what is heard** and press Run. The picture \
becomes the first frame.

- It is cropped to the shape of *width* and *height*, never squeezed: 512 and 768 suit an upright one.
- Connect another picture to *last_image* to say where the video ends. *image_strength* below 1 lets the pictures \
change.
- *frames* / *fps* is the length: 121 / 25 is 5 seconds.
- {LTX2_KINDS}

{LOCAL_FIND}"""

LTX2_STAGES_NOTE = f"""\
## 1080p in two stages, with sound: LTX-2

{LTX2_START.format(files=f"{LTX2_FILES}; [the upscaler]({UPSCALER['url']}), 1 GB, in **latent_upscale_models**")}
**2. Describe the scene and press Run.** LTX-2 makes sound too. Say in order what is seen, what the camera does and \
what is heard; what somebody says goes in quotation marks.

- The sampler works at 960x540, LTX-2 Upscale doubles that and refines it in three steps: 1920x1080. Change the size \
in the sampler.
- *frames* / *fps* is the length: 121 / 25 is 5 seconds.
- To start from a picture, connect Load Image to *first_image*; both stages use it.
- The checkpoint is *distilled*: both stages are made for that kind.

{LOCAL_FIND}"""

GENERATE_NOTE = f"""\
## One node for every model

**1. Choose the model** in Generate Video. It shows what that model needs; prompt and seed stay. Here it is LTX-2.

- *Cosmos Text2World* and *Cosmos Video2World*: NVIDIA's Cosmos, in a NIM container of its own at \
**http://localhost:8000**, or at the address in the environment variable **COSMOS_NIM_URL**.
- *LTX-2 (FP8)*: picture and sound. In ComfyUI's folder **models** it needs {LTX2_FILES}.
- *SVD-XT*: a picture set in motion, without a text. It needs [svd_xt.safetensors]({SVD["url"]}), 9.6 GB, in \
**checkpoints**; accept the licence on its page first.

**2. Describe the scene and press Run.** To start from a picture, connect Load Image to *image*. Choosing another \
model takes that link away: connect it again.

Model Health, another node of this pack, says which of them are ready, and what to do where something is missing.

{LOCAL_FIND}"""

SVD_NOTE = f"""\
## A picture set in motion: SVD-XT

**1. Get the model.** [Its page]({SVD["url"].partition("/resolve/")[0]}) asks you to accept a licence: log in to \
Hugging Face and agree there. Then get [svd_xt.safetensors]({SVD["url"]}), 9.6 GB, into ComfyUI's folder \
**models/checkpoints**. The editor has a download button for it, which may ask you to log in too. Then press R.

The page also has the model in folders, whose fp16 files are 4.5 GB: put them in \
**models/diffusers/stable-video-diffusion-img2vid-xt** and choose that in the loader.

**2. Choose your picture** in Load Image and press Run. The video starts from it. There is no text and no sound: for \
another movement, change the *seed*.

- The picture is cropped to the shape of *width* and *height*, never squeezed: 576 and 1024 suit an upright one.
- *frames* / *fps* is the length: 25 / 7 is 3.6 seconds. SVD-XT was trained for 25 frames.
- *motion_bucket_id* says how much moves: 127 is normal, 40 calm, 200 a lot.
- *noise_aug_strength*: with more of it the video departs further from the picture, and moves more.
- *min_guidance* is how closely the first frame follows the picture, *max_guidance* the last one.

{LOCAL_FIND}"""


def ltx2_loader(pos: tuple[int, int]) -> Node:
    return Node("Xavi9LTX2Loader", pos, (440, 130), {"checkpoint": LTX2["name"], "text_encoder": GEMMA["name"]},
                models=(LTX2, GEMMA))


# The text is read before any LoRA, which changes nothing about it.
LTX2_LINKS = [("loader.model", "text.model"), ("loader.model", "sampler.model"), ("loader.model", "decode.model"),
              ("text.conditioning", "sampler.conditioning"), ("decode.video", "save.video")]

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
            "sampler": Node("Xavi9LTX2Sampler", (1000, 0), (400, 430)),
            "decode": Node("Xavi9LTX2Decode", (1000, 560), (400, 100)),
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
            "sampler": Node("Xavi9LTX2Sampler", (1000, 0), (400, 430)),
            "decode": Node("Xavi9LTX2Decode", (1000, 560), (400, 100)),
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
            "sampler": Node("Xavi9LTX2Sampler", (1000, 0), (400, 430), {"width": 960, "height": 540}),
            "upscale": Node("Xavi9LTX2Upscale", (1460, 0), (400, 170), {"upscaler": UPSCALER["name"]},
                            models=(UPSCALER,)),
            "decode": Node("Xavi9LTX2Decode", (1460, 300), (400, 100)),
            "save": Node("Xavi9VideoSave", (1920, 0), (480, 520)),
        },
        links=[*LTX2_LINKS, ("loader.model", "upscale.model"), ("text.conditioning", "upscale.conditioning"),
               ("sampler.latents", "upscale.latents"), ("upscale.latents", "decode.latents")]),
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
    "sampler": Node("Xavi9LTX2Sampler", (500, 0), (400, 430)),
    "decode": Node("Xavi9LTX2Decode", (500, 560), (400, 100)),
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
