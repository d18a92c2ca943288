"""SVD-XT here against stock diffusers on the same weights: bit for bit, from latents to frames."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clips import probe
from tiny import stock, svd
from xavi9videos.nodes.checks import check_numbers
from xavi9videos.nodes.errors import ImageMissing, ImageNotUsable, NotFinite, OutOfRange
from xavi9videos.nodes.pictures import check_image, fitted
from xavi9videos.nodes.svd import attention, decode, nodes, sampling
from xavi9videos.nodes.svd.checkpoint import SVD
from xavi9videos.nodes.video.source import LazyVideo

SEED, STEPS, CHUNK = 5, 2, 3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("svd")
    for weights in ("fp16", "fp32"):
        svd.write_checkpoint(folder / f"{weights}.safetensors", weights=weights)
    svd.write_folder(folder / "folder", weights=("fp16",))
    return folder


@pytest.fixture(scope="module")
def model(files):
    return SVD(str(files / "fp16.safetensors"))


@pytest.fixture(scope="module")
def pipe(files):
    return stock.svd_pipeline(files / "fp16.safetensors")


def picture(width=200, height=120, channels=3):
    rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([rows, columns, (rows * 9).sin() / 2 + 0.5, columns.flip(1)][:channels], -1)[None]


def shot(width=128, height=64, frames=7, fps=7, motion=127, noise=0.02, guidance=(1.0, 3.0), image=None):
    return sampling.Shot(picture() if image is None else image, width, height, frames, fps, motion, noise, guidance)


def ours(model, asked, steps=STEPS, seed=SEED, chunk=CHUNK):
    """Frames [frames, height, width, 3]."""
    with torch.inference_mode():
        latents = sampling.denoise(model, asked, steps, seed, lambda *_: None)
        return torch.cat(list(decode.pictures(model, latents, asked, chunk)))


def stocks(pipe, asked, steps=STEPS, seed=SEED, chunk=CHUNK):
    """The same of diffusers' pipeline, on the grid."""
    width, height = asked.grid_size
    with torch.inference_mode():
        made = pipe(
            asked.picture, width=width, height=height, num_frames=asked.frames, num_inference_steps=steps,
            min_guidance_scale=asked.guidance[0], max_guidance_scale=asked.guidance[1], fps=asked.fps,
            motion_bucket_id=asked.motion_bucket_id, noise_aug_strength=asked.noise_aug_strength,
            decode_chunk_size=chunk, generator=torch.Generator().manual_seed(seed), output_type="np",
        )  # fmt: skip
    return torch.from_numpy(made.frames[0])


@pytest.mark.parametrize("inputs", [
    {}, {"guidance": (1.0, 1.0)}, {"guidance": (2.0, 2.5), "frames": 1}, {"guidance": (0.0, 3.0)},
    {"guidance": (3.0, 1.5)},
    {"width": 72, "height": 136, "frames": 2}, {"motion": 1, "fps": 30, "noise": 1.0},
])  # fmt: skip
def test_frames_are_bit_for_bit_diffusers(model, pipe, inputs):
    asked = shot(**inputs)
    assert torch.equal(ours(model, asked), stocks(pipe, asked))


@pytest.mark.parametrize("chunk", [1, 2, 25])
def test_a_chunk_is_what_the_decoder_sees_together(model, pipe, chunk):
    found = ours(model, shot(), chunk=chunk)
    assert torch.equal(found, stocks(pipe, shot(), chunk=chunk))
    assert not torch.equal(found, ours(model, shot()))


@pytest.mark.parametrize("name", ["fp32.safetensors", "folder"])
def test_every_kind_of_file_is_bit_for_bit_diffusers(files, pipe, name):
    peer = stock.svd_pipeline(files / name) if name.endswith("safetensors") else pipe
    assert torch.equal(ours(SVD(str(files / name)), shot()), stocks(peer, shot()))


@pytest.mark.parametrize("steps", [1, 3])
def test_any_number_of_steps(model, pipe, steps):
    found = ours(model, shot(), steps=steps)
    assert torch.equal(found, stocks(pipe, shot(), steps=steps))
    assert torch.isfinite(found).all()


def test_a_single_frame_has_the_first_ones_guidance(model, pipe):
    """Stock diffusers fails: it prepares for guidance by the last one's, and then finds none."""
    asked = shot(frames=1)
    with pytest.raises(RuntimeError):
        stocks(pipe, asked)
    assert torch.equal(ours(model, asked), stocks(pipe, shot(frames=1, guidance=(1.0, 1.0))))


def test_guidance_may_fall_to_none(model, pipe):
    """Stock diffusers fails where the last frame has none and another has some; where it does not, it is the same."""
    asked = shot(guidance=(3.0, 1.0))
    with pytest.raises(RuntimeError):
        stocks(pipe, asked)
    falling = ours(model, asked)
    assert torch.isfinite(falling).all()
    close = ours(model, shot(guidance=(3.0, 1.0 + 1e-6)))
    assert torch.equal(close, stocks(pipe, shot(guidance=(3.0, 1.0 + 1e-6))))
    assert torch.allclose(falling, close, atol=1e-4)


def test_only_another_chunk_does_not_sample_again(files):
    model, steps = SVD(str(files / "fp16.safetensors")), []
    with torch.inference_mode():
        made = [
            sampling.latents(model, asked, STEPS, seed, lambda index, _: steps.append(index))
            for asked, seed in ((shot(), 5), (shot(), 5), (shot(), 6), (shot(image=picture().flip(1)), 6), (shot(), 5))
        ]
    assert len(steps) == 4 * STEPS
    assert made[0] is made[1] and torch.equal(made[0], made[4])
    assert not torch.equal(made[2], made[3])


def test_sizes_off_the_grid_are_cropped_to(model, pipe):
    asked = shot(width=125, height=67)
    found = ours(model, asked)
    assert found.shape == (7, 67, 125, 3)
    assert torch.equal(found, stocks(pipe, asked)[:, :67, :125])


def test_what_is_cut_off_again_repeats_the_edge():
    asked = shot(width=125, height=67)
    pixels, exact = np.asarray(asked.picture), np.asarray(fitted(picture(), (125, 67)))
    assert pixels.shape == (72, 128, 3)
    assert (pixels[:67, :125] == exact).all()
    assert (pixels[:, 125:] == pixels[:, 124:125]).all() and (pixels[67:] == pixels[66:67]).all()


def test_extreme_values_stay_finite(model):
    for inputs in ({"guidance": (100.0, 100.0)}, {"noise": 10.0}, {"motion": 1023, "fps": 60}, {"fps": 1}):
        found = ours(model, shot(**inputs, frames=3))
        assert torch.isfinite(found).all() and found.min() >= 0 and found.max() <= 1


def test_seed_image_motion_and_noise_count(model):
    base = ours(model, shot())
    assert torch.equal(base, ours(model, shot()))
    others = [ours(model, shot(), seed=6), ours(model, shot(image=picture().flip(1))), ours(model, shot(motion=255)),
              ours(model, shot(noise=0.5)), ours(model, shot(fps=25))]  # fmt: skip
    assert all((base - it).abs().mean() > 1e-3 for it in others)


def test_transparency_is_black_and_the_shape_is_cropped(model):
    opaque = picture(channels=4)
    opaque[..., 3] = 1
    assert torch.equal(ours(model, shot(image=opaque)), ours(model, shot()))
    clear = opaque.clone()
    clear[..., 3] = 0
    assert torch.equal(ours(model, shot(image=clear)), ours(model, shot(image=torch.zeros_like(picture()))))
    # Both at once: at 240x120 nothing is resized, so that nothing beyond the cut shows.
    size = {"width": 240, "height": 120, "frames": 1}
    wide = torch.cat([torch.rand(1, 120, 50, 3), picture(240, 120), torch.rand(1, 120, 50, 3)], 2)
    assert torch.equal(ours(model, shot(image=wide, **size)), ours(model, shot(image=picture(240, 120), **size)))


def test_each_step_shows_the_clean_frame_in_the_middle(model):
    seen = []
    with torch.inference_mode():
        latents = sampling.denoise(model, shot(), 3, SEED, lambda index, clean: seen.append((index, clean)))
    assert [index for index, _ in seen] == [0, 1, 2]
    assert all(clean.shape == (1, 4, 8, 16) for _, clean in seen)
    assert torch.allclose(seen[-1][1][0], latents[3], atol=1e-5)
    assert not torch.allclose(seen[0][1], seen[-1][1], atol=1e-2)


def test_the_model_is_as_it_was_after_a_run_that_failed(model, pipe):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), torch.inference_mode():
        sampling.denoise(model, shot(), 3, SEED, stop)
    processors = {type(it).__name__ for it in model.unet.module.attn_processors.values()}
    assert processors == {"AttnProcessor2_0"}
    assert not any("forward" in vars(it) for it in model.unet.module.modules())
    assert torch.equal(ours(model, shot()), stocks(pipe, shot()))


def test_the_attention_that_a_cpu_host_takes_by_default_is_within_rounding(model, monkeypatch):
    from comfy.ldm.modules.attention import attention_sub_quad

    with torch.inference_mode():
        expected = sampling.denoise(model, shot(), STEPS, SEED, lambda *_: None)
        monkeypatch.setattr(attention, "attention", attention_sub_quad)
        found = sampling.denoise(model, shot(), STEPS, SEED, lambda *_: None)
    # Not equal, or the other attention was not called.
    assert not torch.equal(found, expected)
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_what_is_kept_is_computed_once_a_run(model):
    calls = []
    block = attention.cross_attention_blocks(model.unet.module)[0]
    hooks = [it.register_forward_hook(lambda module, *_: calls.append(module))
             for it in (block.attn2.to_v, block.attn2.to_q, block.norm1)]  # fmt: skip
    with torch.inference_mode():
        sampling.denoise(model, shot(), 3, SEED, lambda *_: None)
    for hook in hooks:
        hook.remove()
    counts = [calls.count(it) for it in (block.attn2.to_v, block.attn2.to_q, block.norm1)]
    assert counts == [1, 0, 3]
    # 16 transformers with a spatial and a temporal block each.
    assert len(attention.cross_attention_blocks(model.unet.module)) == 32


def test_a_video_of_the_published_size_is_saved_frame_by_frame(tmp_path):
    """1024x576, 25 frames at 7: what no CPU makes in a test, as a lazy video of that shape."""
    alive = []

    def frames():
        for count in (8, 8, 8, 1):
            piece = torch.rand(count, 1, 1, 3).expand(count, 576, 1024, 3)
            alive.append(count)
            yield piece

    video = LazyVideo(frames, lambda: None, (25, 576, 1024), 7)
    video.save_to(str(tmp_path / "a.mp4"))
    found = probe(tmp_path / "a.mp4")
    assert (found["video"]["width"], found["video"]["height"]) == (1024, 576)
    assert (int(found["video"]["nb_read_frames"]), found["video"]["r_frame_rate"]) == (25, "7/1")
    assert found["audio"] is None and alive == [8, 8, 8, 1]


def test_without_an_image_it_says_what_it_needs():
    with pytest.raises(ImageMissing, match="SVD-XT needs an image"):
        nodes.check_given(nodes.ABSENT)
    nodes.check_given(None)


def test_values_that_are_no_numbers_are_an_error_and_no_video(files):
    model = SVD(str(files / "fp32.safetensors"))
    with pytest.raises(NotFinite, match="in the latents"), torch.inference_mode():
        sampling.denoise(model, shot(noise=float("nan")), 1, SEED, lambda *_: None)
    latents = torch.full((7, 4, 8, 16), float("nan"))
    handle = SimpleNamespace(model=model)
    with pytest.raises(NotFinite, match="in the frames"), torch.inference_mode():
        list(decode.video_of(handle, latents, shot(), CHUNK).images())


@pytest.mark.parametrize("name, value", [
    ("frames", 0), ("frames", -5), ("steps", 0), ("width", -100), ("fps", 0), ("decode_chunk", 0), ("seed", -1),
    ("noise_aug_strength", float("nan")), ("min_guidance", float("nan")), ("max_guidance", 1e9),
])  # fmt: skip
def test_linked_numbers_are_checked_when_the_node_runs(name, value):
    schema = nodes.SVDImageToVideo.GET_SCHEMA()
    given = {it.id: getattr(it, "default", None) for it in schema.inputs}
    check_numbers(nodes.SVDImageToVideo, given)
    with pytest.raises(OutOfRange, match=f"{name} is .* are allowed"):
        check_numbers(nodes.SVDImageToVideo, {**given, name: value})


@pytest.mark.parametrize("image", [
    None, "hello", torch.zeros(64, 64, 3), torch.zeros(1, 64, 64, 5), torch.zeros(1, 64, 64, 2),
])  # fmt: skip
def test_what_is_no_picture_is_refused_by_name(image):
    with pytest.raises(ImageNotUsable, match="it is no picture of 1, 3 or 4 channels"):
        check_image(image)


def test_a_video_does_not_hold_the_picture_that_was_given(model):
    """A large one would stay in memory for as long as the editor shows the result."""
    import gc
    import weakref

    image = picture()
    asked = shot(image=image)
    with torch.inference_mode():
        latents = sampling.latents(model, asked, 1, 9, lambda *_: None)
        video = decode.video_of(SimpleNamespace(model=model), latents, asked, 3)
    reference = weakref.ref(image)
    del image, asked
    gc.collect()
    assert reference() is None and video.get_frame_count() == 7
