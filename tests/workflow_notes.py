"""The notes of the shipped workflows, and the model files that they name."""

from setup_host import REPO


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
LTX2, GEMMA, UPSCALER, LTX23, UPSCALER23, DEV23, SVD = (
    model(line) for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))

LTX2_START = """\
**1. Get the models.** When one is missing, the editor says so on opening this workflow and has a download button for \
it. In ComfyUI's folder **models** they belong here: {files}. Then press R.
"""
LTX2_FILES = (f"[the checkpoint]({LTX2['url']}), 27 GB, in **checkpoints**; "
              f"[Gemma 3]({GEMMA['url']}), 13 GB, in **text_encoders**")
LTX23_FILES = (f"[the checkpoint]({LTX23['url']}), 30 GB, in **checkpoints**; "
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
- With LTX-2.3's checkpoint take [its own upscaler]({UPSCALER23['url']}).

{LOCAL_FIND}"""

LTX23_KEYFRAMES_NOTE = f"""\
## Through pictures of your choice, with sound: LTX-2.3

{LTX2_START.format(files=LTX23_FILES)}
**2. Choose three pictures**, **say what happens from each to the next and what is heard**, and press Run.

- The first picture is frame 0, the last one the end. The one between is seen at *frame* in LTX-2 Keyframe: 60 of 121 \
is \
the middle.
- For more of them connect a further LTX-2 Keyframe to *keyframes*, each with its own *frame* and *strength*.
- Pictures of the same place and light make a calm movement; of different ones a change.
- *frames* / *fps* is the length: 121 / 25 is 5 seconds.

{LOCAL_FIND}"""

LTX23_SOUND_NOTE = f"""\
## A picture that speaks, sings or dances: LTX-2.3

{LTX2_START.format(files=f"{LTX23_FILES}; [the upscaler]({UPSCALER23['url']}), 1 GB, in **latent_upscale_models**")}
**2. Choose your picture** in Load Image **and your sound** in Load Audio, **say what happens** and press Run. The \
movement is made to fit the sound, and the video keeps the sound as it is.

- The sound begins with the video; put *Trim Audio Duration* between to begin somewhere else. Set *frames* to its \
length: \
seconds times *fps* and 1 more.
- Write into the prompt what is spoken, in quotation marks, and who speaks it.
- The sampler works at 640x360, LTX-2 Upscale doubles that: 1280x720. Change the size in the sampler.
- Take the picture's link away to have the sound alone decide. *audio_strength* below 1 lets the model change the sound.

{LOCAL_FIND}"""

LTX23_EXTEND_NOTE = f"""\
## On from a clip, with sound: LTX-2.3

{LTX2_START.format(files=LTX23_FILES)}
**2. Choose your clip** in Load Video, **say how it goes on and what is heard**, and press Run. You get the clip and \
what \
comes after it as one video.

- *overlap* in LTX-2 Extend is how many frames both have in common; Video Join leaves them out once and needs the same \
number.
- Set *width*, *height* and *fps* in the sampler to the clip's, as far as the memory goes: the result has the clip's \
size \
and rate in any case.
- *frames* counts the overlap too: 121 frames with 17 in common are 104 new ones, 4 seconds.
- To go on further, load the result and run again with another prompt.

{LOCAL_FIND}"""

LTX23_DEV_NOTE = f"""\
## The best that LTX-2.3 can: dev, with guidance

{LTX2_START.format(files=LTX23_FILES.replace(LTX23['url'], DEV23['url']).replace('30 GB', '29 GB'))}
**2. Describe the scene and press Run.** Say in order what is seen, what the camera does and what is heard; what \
somebody \
says goes in quotation marks. What to avoid goes below.

- *dev* makes 30 steps. LTX-2 Guidance has each compute four times: about fifteen times as long as *distilled*.
- LTX-2 Guidance is set as Lightricks does it. Colours that burn need more *rescale* or less *guidance_scale*; limbs \
that \
melt need *stg_scale*; sound that does not fit needs *modality_scale*.
- *frames* / *fps* is the length: 121 / 25 is 5 seconds.

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
