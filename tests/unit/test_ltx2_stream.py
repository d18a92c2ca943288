"""LTX-2's streamed video decoder against diffusers' whole one, on random weights."""

from itertools import islice

import comfy.ops
import pytest
import torch
from parts import Live
from xavi9videos.nodes.ltx2.stream import decode_stream, needed_bytes

MIXED = {"upsample_type": ("spatial", "temporal", "spatiotemporal"), "upsample_residual": (True, False, True)}


def decoder(dtype=torch.float32, **config) -> torch.nn.Module:
    """A tiny AutoencoderKLLTX2Video that compresses by 8 x 32 x 32, as the real one does."""
    from diffusers import AutoencoderKLLTX2Video

    torch.manual_seed(0)
    tiny = {"block_out_channels": (128,) * 4, "decoder_block_out_channels": (8, 16, 32), "layers_per_block": (1,) * 5,
            "decoder_layers_per_block": (1,) * 4, "decoder_causal": False}  # fmt: skip
    return AutoencoderKLLTX2Video(**tiny | config).eval().to(dtype)


def latents(vae, frames: int, height: int, width: int) -> torch.Tensor:
    made = torch.randn(1, 128, frames, height, width, generator=torch.Generator().manual_seed(frames))
    return made.to(vae.dtype)


def whole(vae, given: torch.Tensor) -> torch.Tensor:
    """[frames, 3, height, width], as the pipeline decodes it."""
    with torch.no_grad():
        return vae.decode(given, None, return_dict=False)[0][0].movedim(0, 1)


def peak(vae, given: torch.Tensor, **options) -> int:
    with Live() as live:
        for _ in decode_stream(vae, given, **options):
            pass
    return live.peak


# float32 sums on the CPU go in another order where height * width is no multiple of 32; bfloat16 rounds that away.
@pytest.mark.parametrize(("dtype", "height", "width"), [(torch.float32, 4, 8), (torch.bfloat16, 3, 5)])
@pytest.mark.parametrize("frames", [1, 2, 3, 9])
def test_same_bits(dtype, height, width, frames):
    vae = decoder(dtype)
    given = latents(vae, frames, height, width)
    expected = whole(vae, given)
    assert len(expected) == 8 * frames - 7
    for chunk in {1, 2, 3, frames}:
        pieces = list(decode_stream(vae, given, chunk))
        assert torch.equal(torch.cat(pieces), expected), chunk
        assert not pieces[0].requires_grad


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"decoder_causal": True},
        {"decoder_spatial_padding_mode": "zeros"},
        {"decoder_layers_per_block": (1, 2, 3, 2)},
        {"upsample_factor": (1, 1, 1)},
        {"decoder_causal": True, **MIXED},
        MIXED,
    ],
)
def test_every_kind_of_decoder(config):
    vae = decoder(torch.float64, **config)
    for frames, chunk in ((1, 1), (2, 1), (9, 1), (7, 3)):
        given = latents(vae, frames, 2, 3)
        torch.testing.assert_close(torch.cat(list(decode_stream(vae, given, chunk))), whole(vae, given),
                                   rtol=0, atol=1e-12)  # fmt: skip


def test_the_layers_cast_their_weights():
    vae = decoder(torch.bfloat16)
    for module in vae.modules():
        if type(module) is torch.nn.Conv3d:
            module.__class__ = comfy.ops.manual_cast.Conv3d
    given = latents(vae, 3, 4, 8).float()
    pieces = torch.cat(list(decode_stream(vae, given)))
    assert pieces.dtype == torch.float32 and torch.equal(pieces, whole(vae, given))


def test_other_decodes_meanwhile():
    vae = decoder()
    given, other = latents(vae, 9, 4, 8), latents(vae, 8, 4, 8)
    expected, expected_other = whole(vae, given), whole(vae, other)
    stream, beside = decode_stream(vae, given), decode_stream(vae, other, chunk=2)
    pieces, pieces_beside = [next(stream)], [next(beside)]
    assert torch.equal(whole(vae, other), expected_other)
    for piece in islice(stream, 3):
        pieces.append(piece)
        pieces_beside.append(next(beside))
    half = decode_stream(vae, other)
    next(half)
    half.close()
    assert torch.equal(torch.cat([*pieces, *stream]), expected)
    assert torch.equal(torch.cat([*pieces_beside, *beside]), expected_other)
    assert torch.equal(whole(vae, given), expected)


@pytest.mark.parametrize(("tiles", "longer"), [(None, 72), ((2, 1), 36)])
def test_memory_does_not_grow_with_the_clip(tiles, longer):
    vae = decoder()
    assert peak(vae, latents(vae, longer, 2, 3), tiles=tiles) <= 1.01 * peak(vae, latents(vae, 9, 2, 3), tiles=tiles)


@pytest.mark.parametrize("tiles", [None, (3, 1)])
def test_closed_early_it_holds_nothing(tiles):
    vae = decoder()
    with Live() as live:
        given = latents(vae, 9, 4, 4)
        start = live.now
        stream = decode_stream(vae, given, tiles=tiles)
        next(stream)
        assert live.now > start
        stream.close()
        assert live.now == start


def test_poll_interrupts_within_a_piece():
    vae = decoder()
    given, polls = latents(vae, 12, 2, 3), []
    stream = decode_stream(vae, given, poll=lambda: polls.append(None))
    next(stream)
    before = len(polls)
    next(stream)
    assert len(polls) - before > 10

    def interrupt():
        if len(polls) == 5:
            raise InterruptedError("now")
        polls.append(None)

    polls.clear()
    with pytest.raises(InterruptedError, match="now"):
        list(decode_stream(vae, given, poll=interrupt))


def test_tiles_like_the_whole_away_from_their_edges():
    vae = decoder()
    given = latents(vae, 3, 4, 40)
    expected, tiled = whole(vae, given), torch.cat(list(decode_stream(vae, given, tiles=(24, 4))))
    assert tiled.shape == expected.shape
    # Two tiles, 0..24 and 16..40; seven latent pixels are as far as this decoder sees.
    off = (tiled - expected).abs().amax(dim=(0, 1, 2))
    assert off[: 16 * 32].max() < 1e-4 and off[24 * 32 :].max() < 1e-4
    assert 1e-4 < off.max() < 0.5 * expected.abs().max()


@pytest.mark.parametrize("size", [(5, 7, 3, 1), (4, 11, 4, 3), (3, 9, 4, 0), (9, 5, 5, 2)])
def test_tiles_leave_no_seams(size):
    height, width, *tiles = size
    vae = decoder()
    torch.nn.init.zeros_(vae.decoder.conv_out.conv.weight)
    torch.nn.init.constant_(vae.decoder.conv_out.conv.bias, 0.7)
    frames = torch.cat(list(decode_stream(vae, latents(vae, 2, height, width), tiles=tiles)))
    assert frames.shape == (9, 3, 32 * height, 32 * width)
    assert (frames - 0.7).abs().max() < 1e-5


def test_a_tile_as_large_as_the_picture_changes_nothing():
    vae = decoder()
    given = latents(vae, 3, 4, 8)
    assert torch.equal(torch.cat(list(decode_stream(vae, given, tiles=(8, 2)))), whole(vae, given))


def test_refusals():
    vae = decoder()
    with pytest.raises(ValueError, match="one clip"):
        decode_stream(vae, torch.zeros(2, 128, 1, 2, 2))
    with pytest.raises(ValueError, match="overlap"):
        decode_stream(vae, latents(vae, 1, 4, 4), tiles=(2, 2))
    for config in ({"timestep_conditioning": True}, {"decoder_inject_noise": (True, False, False, False)}):
        with pytest.raises(NotImplementedError):
            decode_stream(decoder(**config), latents(vae, 1, 4, 4))


@pytest.mark.parametrize(("height", "width", "chunk"), [(3, 4, 1), (6, 8, 1), (3, 4, 2)])
def test_needed_bytes(height, width, chunk):
    vae = decoder()
    needed = needed_bytes(vae, height, width, 4, chunk)
    assert 0.75 < needed / peak(vae, latents(vae, 17, height, width), chunk=chunk) < 1.33


def test_ltx2_in_1080p():
    """121 frames of 1920x1088 by the real decoder, without values. Whole, 21.5 GB would live at once."""
    from diffusers import AutoencoderKLLTX2Video

    with torch.device("meta"):
        # The class's other defaults are LTX-2's.
        vae = AutoencoderKLLTX2Video(decoder_causal=False).to(torch.bfloat16)
    given = torch.empty(1, 128, 16, 34, 60, device="meta", dtype=torch.bfloat16)
    shapes = []
    with Live() as live:
        shapes += [piece.shape for piece in decode_stream(vae, given)]
    assert sum(shape[0] for shape in shapes) == 121 and {shape[1:] for shape in shapes} == {(3, 1088, 1920)}
    assert max(shape[0] for shape in shapes) == 8
    assert 0.9 < needed_bytes(vae, 34, 60, 2) / live.peak < 1.1 and live.peak < 4e9
