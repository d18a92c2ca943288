"""LTX-2's video decoder a few frames at a time: exactly the frames of one go, in memory that no clip's length changes.

Every convolution keeps the frames that its next ones look back at, every shortcut those that its convolutions still
hold back. The layers themselves keep nothing: the same model may decode something else meanwhile. Their order is that
of diffusers' LTX2VideoDecoder3d (diffusers/models/autoencoders/autoencoder_kl_ltx2.py).
"""

from collections.abc import Callable, Iterator
from math import ceil, prod

import torch
from torch import Tensor
from torch.nn import Module

__all__ = ["decode_stream", "needed_bytes"]


class _Line:
    """Frames in order, [1, channels, frames, height, width], until they are needed no more."""

    def __init__(self):
        self.pieces: list[Tensor] = []

    def __len__(self) -> int:
        return sum(piece.shape[2] for piece in self.pieces)

    def put(self, x: Tensor):
        self.pieces.append(x)

    def take(self, count: int, keep: int) -> Tensor:
        """The oldest `count` frames. The newest `keep` of all stay in line."""
        x = torch.cat(self.pieces, dim=2)
        # A copy, since a view would hold all of x in memory.
        self.pieces = [x[:, :, x.shape[2] - keep :].clone()]
        return x[:, :, :count]

    def to(self, device: torch.device | str):
        self.pieces = [piece.to(device) for piece in self.pieces]


def _same(x: Tensor) -> Tensor:
    return x


class _Step:
    """One convolution in time with what happens right before and after it, and all that is kept for its sake.

    The first and the last frame stand for those beyond them. Unless causal, a step sees `ahead` frames into the
    future, and so is that many behind its input until the end. stride: how much finer its output is, in t, y and x.
    """

    def __init__(self, conv: Module, causal: bool, before=_same, after=_same, shortcut: _Line | None = None,
                 stride: tuple[int, int, int] = (1, 1, 1)):  # fmt: skip
        self.conv, self.before, self.after, self.stride = conv.conv, before, after, stride
        self.window = conv.kernel_size[0]
        self.ahead = 0 if causal else self.window // 2
        self.seen = _Line()
        self.lines = [self.seen] + ([shortcut] if shortcut is not None else [])

    def __call__(self, x: Tensor) -> Tensor | None:
        """The frames that the next ones x make possible; None if there are none yet."""
        return self._slide(self.before(x))

    def end(self) -> Tensor | None:
        """The frames held back, when x has ended."""
        x = self._slide(self.seen.pieces[-1][:, :, -1:].repeat(1, 1, self.ahead, 1, 1)) if self.ahead else None
        self.seen.pieces.clear()
        return x

    def _slide(self, x: Tensor) -> Tensor | None:
        if not self.seen:
            self.seen.put(x[:, :, :1].repeat(1, 1, self.window - 1 - self.ahead, 1, 1))
        self.seen.put(x)
        x = self.seen.take(len(self.seen), keep=self.window - 1)
        return self.after(self.conv(x)) if x.shape[2] >= self.window else None


def _resnet(block: Module, causal: bool) -> list[_Step]:
    shortcut = _Line()

    def enter(x):
        shortcut.put(x)
        return block.nonlinearity(block.norm1(x))

    def middle(x):
        return block.dropout(block.nonlinearity(block.norm2(x)))

    def leave(x):
        inputs = shortcut.take(x.shape[2], keep=len(shortcut) - x.shape[2])
        if block.norm3 is not None:
            inputs = block.norm3(inputs.movedim(1, -1)).movedim(-1, 1)
        if block.conv_shortcut is not None:
            inputs = block.conv_shortcut(inputs)
        return x + inputs

    return [
        _Step(block.conv1, causal, before=enter, shortcut=shortcut),
        _Step(block.conv2, causal, before=middle, after=leave),
    ]


def _upsampler(block: Module, causal: bool) -> _Step:
    shortcut = _Line()
    # The clip's first frame becomes one frame, every other one stride[0].
    surplus = block.stride[0] - 1

    def spread(x):
        x = x.reshape(x.shape[0], -1, *block.stride, *x.shape[2:]).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def enter(x):
        if block.residual:
            shortcut.put(x)
        return x

    def leave(x):
        nonlocal surplus
        frames, skipped, surplus = x.shape[2], surplus, 0
        x = spread(x)[:, :, skipped:]
        if block.residual:
            inputs = spread(shortcut.take(frames, keep=len(shortcut) - frames))
            x = x + inputs.repeat(1, prod(block.stride) // block.upscale_factor, 1, 1, 1)[:, :, skipped:]
        return x

    return _Step(block.conv, causal, enter, leave, shortcut, block.stride)


def _steps(decoder: Module) -> list[_Step]:
    """The decoder's convolutions in order, new ones, which have seen nothing. Raises NotImplementedError."""
    for module in decoder.modules():
        for part in ("time_embedder", "per_channel_scale1"):
            if getattr(module, part, None) is not None:
                raise NotImplementedError(f"streaming a video decoder with a {part}")
    causal, patch, patch_t = decoder.is_causal, decoder.patch_size, decoder.patch_size_t

    def activate(x):
        return decoder.conv_act(decoder.norm_out(x))

    def unpatch(x):
        x = x.reshape(x.shape[0], -1, patch_t, patch, patch, *x.shape[2:]).permute(0, 1, 5, 2, 6, 4, 7, 3)
        return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)

    steps = [_Step(decoder.conv_in, causal)]
    for resnet in decoder.mid_block.resnets:
        steps += _resnet(resnet, causal)
    for block in decoder.up_blocks:
        if block.conv_in is not None:
            steps += _resnet(block.conv_in, causal)
        steps += [_upsampler(upsampler, causal) for upsampler in block.upsamplers or ()]
        for resnet in block.resnets:
            steps += _resnet(resnet, causal)
    return [*steps, _Step(decoder.conv_out, causal, activate, unpatch, stride=(patch_t, patch, patch))]


@torch.no_grad()
def _pieces(steps: list[_Step], latents: Tensor, chunk: int, poll: Callable, park: bool) -> Iterator[Tensor]:
    """What the steps make of the latents, piece by piece. park: what they keep waits on the CPU, while others run."""

    def run(x, steps):
        for step in steps:
            if x is None:
                break
            poll()
            x = step(x)
        return x

    def outputs():
        for x in latents.split(chunk, dim=2):
            yield run(x, steps)
        # One step after the other: all at once, the frames held back by each would add up on the way.
        for index, step in enumerate(steps, 1):
            poll()
            yield run(step.end(), steps[index:])

    def move(device):
        for step in steps:
            for line in step.lines:
                line.to(device)

    for x in outputs():
        if x is not None:
            move("cpu" if park else latents.device)
            yield x[0].movedim(0, 1)
            move(latents.device)


def _spans(size: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """0..size in spans of one length, at most `tile`, laid evenly, that overlap by `overlap` or more."""
    if size <= tile:
        return [(0, size)]
    count = ceil((size - overlap) / (tile - overlap))
    starts = [index * (size - tile) // (count - 1) for index in range(count)]
    return [(start, start + tile) for start in starts]


def _shares(spans: list[slice], device: torch.device) -> list[Tensor]:
    """How much each span counts at each of its places: 1 in sum, and linear where two overlap by half or less."""
    length = spans[0].stop - spans[0].start
    tent = torch.arange(length, device=device) + 0.5
    tent = torch.minimum(tent, tent.flip(0))
    total = torch.zeros(spans[-1].stop, device=device)
    for span in spans:
        total[span] += tent
    return [tent / total[span] for span in spans]


@torch.no_grad()
def _blended(streams: list[Iterator[Tensor]], rows: list[slice], columns: list[slice]) -> Iterator[Tensor]:
    """One picture of tiles: streams gives each tile's pieces, row by row, the slices say at which pixels they lie."""
    for tiles in zip(*streams, strict=True):
        frames, channels, *_ = tiles[0].shape
        picture = torch.zeros(frames, channels, rows[-1].stop, columns[-1].stop, device=tiles[0].device)
        left = iter(tiles)
        for row, tall in zip(rows, _shares(rows, picture.device), strict=True):
            for column, wide in zip(columns, _shares(columns, picture.device), strict=True):
                picture[..., row, column] += next(left) * (tall[:, None] * wide)
        yield picture.to(tiles[0].dtype)


def decode_stream(vae: Module, latents: Tensor, chunk: int = 1, tiles: tuple[int, int] | None = None,
                  poll: Callable[[], object] = lambda: None) -> Iterator[Tensor]:  # fmt: skip
    """The frames of vae.decode(latents), in order, in pieces [frames, 3, 32 * h, 32 * w] of about -1..1.

    vae: an AutoencoderKLLTX2Video. latents: [1, 128, F, h, w], denormalized, on the decoder's device and in its
    dtype; they make 8 * F - 7 frames. chunk: how many of the F go in at a time. tiles: the side of a tile, and by how
    much two overlap at least, in latent pixels (32 of the picture's). poll: called before each layer; what it raises
    passes through. Raises ValueError for more than one clip or impossible tiles, NotImplementedError for decoders
    unlike LTX-2's, which take a timestep or add noise.
    """
    if latents.shape[0] != 1:
        raise ValueError(f"one clip at a time can be streamed, not {latents.shape[0]}")
    height, width = latents.shape[3:]
    tile, overlap = tiles or (max(height, width), 0)
    if not 0 <= overlap < tile:
        raise ValueError(f"tiles of {tile} latent pixels cannot overlap by {overlap}")
    rows, columns = _spans(height, tile, overlap), _spans(width, tile, overlap)
    places = [(slice(*row), slice(*column)) for row in rows for column in columns]
    streams = [
        _pieces(_steps(vae.decoder), latents[..., row, column], chunk, poll, park=len(places) > 1)
        for row, column in places
    ]
    if len(streams) == 1:
        return streams[0]
    pixels = prod(step.stride[1] for step in _steps(vae.decoder))
    return _blended(streams, *([slice(a * pixels, b * pixels) for a, b in spans] for spans in (rows, columns)))


def needed_bytes(vae: Module, height: int, width: int, dtype_size: int, chunk: int = 1) -> int:
    """About what decode_stream needs at once on the device, for a picture or one tile of so many latent pixels.

    Neither weights nor latents count, nor the work space of the device's convolutions, nor the picture that is put
    together from tiles. dtype_size: bytes of a value.
    """
    kept = peak = 0
    frames, area = chunk, height * width
    for step in _steps(vae.decoder):
        inputs, outputs = step.conv.in_channels * area, step.conv.out_channels * area
        # What it looks back at; a shortcut waits as long as its convolutions are late.
        kept += inputs * (step.window - 1 + step.ahead)
        # While it runs: its input, for the shortcut too, that with what was kept, padded in space, and its output.
        # Then that output thrice: as it came, rearranged, and in a sum or as the piece handed out before.
        peak = max(peak, inputs * (4 * frames + 4) + outputs * frames, inputs * 2 * frames + outputs * 3 * frames)
        frames, area = frames * step.stride[0], area * step.stride[1] * step.stride[2]
    return (kept + peak) * dtype_size
