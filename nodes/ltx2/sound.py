"""A given sound: as the model's latents, and held while the picture is made to fit it.

How Lightricks makes a picture for a sound (ltx-pipelines, a2vid_two_stage.py): the sound's latents get no noise and its
noise level is 0 at every step. A strength below 1 starts it from so much less noise instead.
"""

from functools import cache, wraps

import torch
from comfy_api.latest import Input

from ..checks import check_audio
from ..errors import AudioNotUsable
from ..host import memory
from .checkpoint import LTX2
from .shot import AUDIO_PER_SECOND, Shot

# Of the spectrogram that the audio VAE was trained on (Lightricks/LTX-2, ltx_core, audio_vae/ops.py).
N_FFT, FLOOR = 1024, 1e-5


def check_heard(audio: Input.Audio):
    """Raise AudioNotUsable for an AUDIO that is not one clip of finite values, with some."""
    check_audio(audio)
    wave = audio["waveform"]
    if not wave.numel():
        raise AudioNotUsable(reason=f"it has no samples (its shape is {tuple(wave.shape)})")
    if not torch.isfinite(wave).all():
        raise AudioNotUsable(reason="some of its values are NaN or infinite; the node that made it failed")


def lasting(audio: Input.Audio, seconds: float) -> Input.Audio:
    """An AUDIO cut after so many seconds, or followed by silence until then."""
    wave, samples = audio["waveform"], round(seconds * audio["sample_rate"])
    wave = torch.nn.functional.pad(wave[..., :samples], (0, max(samples - wave.shape[-1], 0)))
    return {**audio, "waveform": wave}


def spectrogram(audio: Input.Audio, rate: int, hop: int, bins: int) -> torch.Tensor:
    """The logarithm of mel magnitudes [1, 2, frames, bins] of an AUDIO, resampled to `rate`.

    Mono is heard on both sides; more than two channels are mixed.
    """
    import torchaudio

    wave = audio["waveform"].float()
    if wave.shape[1] != 2:
        wave = wave.mean(1, keepdim=True).expand(-1, 2, -1)
    if audio["sample_rate"] != rate:
        wave = torchaudio.functional.resample(wave, audio["sample_rate"], rate)
    mel = torchaudio.transforms.MelSpectrogram(
        rate, n_fft=N_FFT, hop_length=hop, f_max=rate / 2, n_mels=bins, power=1.0, norm="slaney", mel_scale="slaney"
    )
    return mel(wave).clamp(min=FLOOR).log().transpose(2, 3)


def encoded(model: LTX2, shot: Shot) -> torch.Tensor:
    """shot.audio as latents [1, 8, L, 16], as the audio VAE makes them, silent where it is too short."""
    module, device = model.audio_vae.module, model.audio_vae.patcher.load_device
    config, count = module.config, shot.audio_latents
    # The VAE looks back only: what comes a window after its last latent changes none.
    audio = lasting(shot.audio, count / AUDIO_PER_SECOND + N_FFT / config.sample_rate)
    mel = spectrogram(audio, config.sample_rate, config.mel_hop_length, config.mel_bins)
    memory.load([model.audio_vae], 1000 * mel.numel() * model.dtype.itemsize, "The given sound")
    return module.encode(mel.to(device, model.dtype)).latent_dist.mode()[:, :, :count].float()


@cache
def scheduler() -> type:
    from diffusers import FlowMatchEulerDiscreteScheduler

    class SoundScheduler(FlowMatchEulerDiscreteScheduler):
        """The picture's scheduler. The copy that diffusers takes of it for the sound has `sound` of its noise."""

        sound, noise = 1.0, 1.0

        def __deepcopy__(self, memo):
            copied = type(self)(**self.config)
            copied.noise = self.sound
            return copied

        @wraps(FlowMatchEulerDiscreteScheduler.set_timesteps)  # the pipelines look at what it takes
        def set_timesteps(self, *args, **more):
            super().set_timesteps(*args, **more)
            # Without noise nothing is stepped, and diffusers divides by these.
            self.sigmas = self.sigmas * (self.noise or 1)

        def step(self, velocity, timestep, sample, **more):
            return super().step(velocity, timestep, sample, **more) if self.noise else (sample,)

    return SoundScheduler
