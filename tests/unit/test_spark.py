"""The memory that docs/spark.md calls computed is what the nodes themselves compute before they load."""

import re
from types import SimpleNamespace

import torch
from setup_host import REPO
from xavi9videos.nodes.ltx2 import attention, sampling
from xavi9videos.nodes.ltx2.shot import Keyframe, Shot
from xavi9videos.nodes.svd import decode
from xavi9videos.nodes.svd import sampling as svd

TEXT = (REPO / "docs" / "spark.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]
# As published: 48 blocks, 32 heads of 128 (sound: 64), Gemma's 49 states of 3840 values.
CONFIG = SimpleNamespace(num_layers=48, num_attention_heads=32, attention_head_dim=128, audio_num_attention_heads=32,
                         audio_attention_head_dim=64)
IMAGE = Keyframe(torch.zeros(1, 8, 8, 3))


def told(start: str) -> list[str]:
    [row] = [it for it in ROWS if it[0].startswith(start)]
    return row


def computing(plan: sampling.Schedule, cross_attn_mod: bool = False, **shot) -> float:
    """GB beside the weights: a step's activations, and what a run keeps of the text. cross_attn_mod: LTX-2.3 has it."""
    module = SimpleNamespace(config=SimpleNamespace(**vars(CONFIG), cross_attn_mod=cross_attn_mod))
    model = SimpleNamespace(transformer=SimpleNamespace(module=module), text_width=49 * 3840, dtype=torch.bfloat16)
    shot = Shot(**{"width": 768, "height": 512, "frames": 121, "fps": 25, **shot})
    kept = attention.kept_bytes(module, 1024, plan.batch, 2)
    return (sampling.activation_bytes(model, shot, plan) + kept) / 1e9


def check(start: str, weights: float, computed: float) -> None:
    row = told(start)
    assert f"{computed:.1f} GB" in row[2] and f"{weights:.1f} GB" in row[1]
    assert f"**{weights + computed:.1f} GB**" in row[3]


def test_ltx2():
    distilled, dev = sampling.schedule("distilled", 0, 0), sampling.schedule("dev", 0, 0)
    check("LTX-2 FP8, 768x512", 27.1, computing(distilled))
    check("the same, dev", 27.1, computing(dev))
    check("the same, from a picture", 27.1, computing(distilled, keyframes=(IMAGE,)))
    check("LTX-2 FP8, 1920x1080", 27.1, computing(sampling.refining(), width=1920, height=1080))
    check("LTX-2 in bf16, 768x512", 43.3, computing(distilled))
    check("LTX-2.3 FP8, 768x512", 29.5, computing(distilled, True))
    check("LTX-2.3 FP8, dev, from a picture", 29.1, computing(dev, True, keyframes=(IMAGE,)))
    check("LTX-2.3 FP8, 1920x1080", 29.5, computing(sampling.refining("2.3"), True, width=1920, height=1080))


def test_svd():
    unet = SimpleNamespace(module=SimpleNamespace(config=SimpleNamespace(block_out_channels=(320, 640, 1280, 1280))))
    vae = SimpleNamespace(module=SimpleNamespace(config=SimpleNamespace(block_out_channels=(128, 256, 512, 512))))
    model = SimpleNamespace(dtype=torch.float16, unet=unet, vae=vae)
    shot = SimpleNamespace(grid_size=(1024, 576), guided=True, frames=25)
    row = told("SVD-XT, 1024x576, 25 frames")
    decoding = decode.needed_bytes(model, 8, 576, 1024) / 1e9
    assert row[2] == f"{svd.activation_bytes(model, shot)['unet'] / 1e9:.1f} GB; decoding {decoding:.1f} GB"
    assert row[3] == f"**{4.5 + decoding:.1f} GB**"


def test_what_fits_together_adds_up():
    sums = re.findall(r"(\d+) \+ (\d+) \(1080p: (\d+)\) \+ 8 for the system \+ 8 in reserve = (\d+) \((\d+)\)", TEXT)
    [(nim, small, large, one, other)] = sums
    assert int(nim) + int(small) + 16 == int(one) and int(nim) + int(large) + 16 == int(other)
    for nim, app, total in re.findall(r"(\d+) \+ (\d+) \+ 16 = (\d+) GB", TEXT):
        assert int(nim) + int(app) + 16 == int(total)
    assert TEXT.count("44 GiB = 47 GB") == 1 and round(44 * 1.073741824) == 47
