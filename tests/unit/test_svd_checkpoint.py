"""Opening SVD-XT: the published names at full size on meta, both kinds of files, and every wrong one."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import ltx2, stock, svd, svd_names
from xavi9videos.nodes import weights
from xavi9videos.nodes.errors import ModelFileBroken, WrongModelFile
from xavi9videos.nodes.host import memory
from xavi9videos.nodes.ltx2.checkpoint import LTX2
from xavi9videos.nodes.svd import checkpoint
from xavi9videos.nodes.svd.checkpoint import SVD

# Of a configuration, what nothing is computed with.
IDLE = ("sample_size", "num_frames", "architectures", "dropout", "initializer_factor", "initializer_range")
PARAMETERS = {"unet": 1_524_623_082, "vae": 97_742_847, "image_encoder": 632_076_800}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("svd")
    svd.write_checkpoint(folder / "fp16.safetensors")
    svd.write_checkpoint(folder / "fp32.safetensors", weights="fp32")
    svd.write_checkpoint(folder / "saved.safetensors", layout="comfyui")
    svd.write_folder(folder / "fp16", weights=("fp16",))
    svd.write_folder(folder / "fp32", weights=("fp32",))
    svd.write_folder(folder / "both", weights=("fp32", "fp16"))
    return folder


def test_the_published_file_fits_diffusers_name_for_name():
    published = svd.published_tensors()
    assert sum(it.numel() for it in published.values()) * 4 == pytest.approx(9.56e9, rel=1e-3)
    parts = checkpoint.converted(published)
    modules = checkpoint.skeletons({name: weights.shapes(part) for name, part in parts.items()})
    for name, module in modules.items():
        shapes = weights.shapes(module.state_dict())
        weights.check("published", "SVD-XT", shapes, weights.shapes(parts[name]), "SVD-XT")
        assert sum(it.numel() for it in module.parameters()) == PARAMETERS[name]
    # The configurations that the shapes tell are those of the published folder.
    for name, module in modules.items():
        config = module.config.to_dict() if name == "image_encoder" else dict(module.config)
        told = {key: value for key, value in svd.PUBLISHED[name].items() if key[0] != "_" and key not in IDLE}
        assert json.loads(json.dumps({key: config.get(key) for key in told})) == told


def test_every_tensor_is_the_one_that_the_published_conversion_gives(files):
    tensors = load_file(files / "fp32.safetensors")
    expected, found = svd_names.components(tensors), checkpoint.converted(tensors)
    for name, part in expected.items():
        assert found[name].keys() == part.keys()
        assert all(torch.equal(found[name][key], value) for key, value in part.items())


def bits(model):
    return [it.module.state_dict() for it in model.parts]


def same(one, other):
    return all(
        left.keys() == right.keys() and all(torch.equal(left[key].float(), right[key].float()) for key in left)
        for left, right in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("kind", ["fp16", "fp32"])
def test_a_folder_and_a_file_hold_the_same(files, kind):
    file, folder = SVD(str(files / f"{kind}.safetensors")), SVD(str(files / kind))
    assert same(bits(file), bits(folder))
    for one, other in zip(file.parts[:2], folder.parts[:2], strict=True):
        left, right = (
            {key: value for key, value in it.module.config.items() if key[0] != "_" and key not in IDLE}
            for it in (one, other)
        )
        assert json.loads(json.dumps(left)) == json.loads(json.dumps(right))


def test_of_a_folder_with_both_the_fp16_files_are_taken(files):
    both, half = SVD(str(files / "both")), SVD(str(files / "fp16"))
    assert both.unet.module.conv_in.weight.dtype == torch.float16
    assert same(bits(both), bits(half))


def test_a_folder_needs_its_three_models_alone(files, tmp_path):
    shutil.copytree(files / "fp16", tmp_path / "other", ignore=shutil.ignore_patterns("scheduler", "feature_extractor"))
    assert same(bits(SVD(str(tmp_path / "other"))), bits(SVD(str(files / "fp16"))))


def test_a_file_that_comfyui_saved_encodes_with_the_encoder_that_it_has(files):
    """As ComfyUI itself: the one beside the decoder, whose last convolution is followed by nothing."""
    saved, published = load_file(files / "saved.safetensors"), SVD(str(files / "fp16.safetensors"))
    model = SVD(str(files / "saved.safetensors"))
    vae, image = model.vae.module, torch.rand(1, 3, 64, 64)
    assert torch.equal(vae.encoder.conv_in.weight, saved["first_stage_model.encoder.conv_in.weight"])
    with torch.inference_mode():
        moments = vae.encoder(image)
        assert torch.equal(vae.quant_conv(moments), moments)
        latents, others = (it.encode(image).latent_dist.mode() for it in (vae, published.vae.module))
        assert not torch.equal(latents, others)
    assert same([model.unet.module.state_dict()], [published.unet.module.state_dict()])
    assert same([model.image_encoder.module.state_dict()], [published.image_encoder.module.state_dict()])


def test_nothing_is_left_without_a_value(files):
    for name in ("fp16.safetensors", "both"):
        for part in SVD(str(files / name)).parts:
            tensors = [*part.module.named_parameters(), *part.module.named_buffers()]
            assert [key for key, value in tensors if value.is_meta] == []


def test_weights_are_the_mapped_file(files):
    model = SVD(str(files / "fp16.safetensors"))
    own = [
        key for part in model.parts for key, value in part.module.state_dict().items()
        # Of what the module itself holds, a few values are kept in what is computed with.
        if value.dtype == torch.float32
    ]  # fmt: skip
    assert set(own) - {key for key in own if key.endswith("mix_factor")} == {
        "vision_model.embeddings.class_embedding", *checkpoint.ASKED.values()
    }


def test_the_schedule_is_the_published_one():
    assert {**svd.SCHEDULER, **checkpoint.SCHEDULE} == svd.SCHEDULER


MODEL = "model.diffusion_model."


@pytest.mark.parametrize("change, words", [
    (lambda it: it.pop(MODEL + "input_blocks.1.0.time_mixer.mix_factor"),
     r"\(unet\) does not fit.* missing 1 \(down_blocks\.0\.resnets\.0\.time_mixer\.mix_factor\)\. "
     r"It looks like Stable Video Diffusion"),
    (lambda it: it.update({MODEL + "more.weight": torch.zeros(1)}), r"extra 1 \(more\.weight\)"),
    (lambda it: it.update({MODEL + "out.2.bias": torch.zeros(7)}),
     r"mis-shaped 1 \(conv_out\.bias \(7,\) instead of \(4,\)\)"),
    (lambda it: it.pop(MODEL + "input_blocks.0.0.weight"), r"'conv_in\.weight' is missing"),
    (lambda it: [it.pop(key) for key in list(it) if ".visual." in key],
     r"it has no image_encoder\. It looks like a part of Stable Video Diffusion"),
    (lambda it: [it.pop(key) for key in list(it) if not key.startswith(MODEL)], r"it has no vae and no image_encoder"),
    (lambda it: it.update({key: value.char() for key, value in it.items()}), r"its weights are of int8"),
    (lambda it: it.update({MODEL + "out.2.weight": it[MODEL + "out.2.weight"].to(torch.float8_e4m3fn)}),
     r"its weights are of float16, float8_e4m3fn"),
    (lambda it: it.update({MODEL + "label_emb.0.0.weight": torch.zeros(256, 256).half()}),
     r"takes 8 channels and 1 numbers, instead of 8 and 3\. It looks like another member"),
    (lambda it: it.update({MODEL + "input_blocks.0.0.weight": torch.zeros(64, 12, 3, 3).half()}),
     r"takes 12 channels and 3 numbers"),
    (lambda it: [it.pop(key) for key in list(it) if "first_stage_model.decoder" in key and
                 ("time_" in key or "mix_factor" in key)], r"It looks like svd_xt_image_decoder\.safetensors"),
    (lambda it: [it.pop(key) for key in list(it) if "first_stage_model.decoder" in key and "time_stack" in key],
     r"missing \d+ \(decoder\..*temporal_res_block"),
])  # fmt: skip
def test_a_file_that_does_not_fit_says_why(files, tmp_path, change, words):
    tensors = load_file(files / "fp16.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "changed.safetensors")
    with pytest.raises(WrongModelFile, match=words):
        SVD(str(tmp_path / "changed.safetensors"))


@pytest.mark.parametrize("keys, kind", [
    (["cond_stage_model.transformer.a", MODEL + "input_blocks.0.0.weight"], "Stable Diffusion 1.5"),
    (["conditioner.embedders.1.model.a", MODEL + "input_blocks.0.0.weight"], "Stable Diffusion XL"),
    (["a.b"], "no model that this pack knows"),
])  # fmt: skip
def test_another_model_is_named(tmp_path, keys, kind):
    path = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(1) for key in keys}, path)
    with pytest.raises(WrongModelFile, match=f"does not fit as SVD-XT.*It looks like {kind}"):
        SVD(str(path))


def test_the_two_local_models_know_each_other(files, tmp_path):
    path = tmp_path / "ltx-2.safetensors"
    ltx2.write_checkpoint(path)
    with pytest.raises(WrongModelFile, match="does not fit as SVD-XT.*It looks like LTX-2"):
        SVD(str(path))
    with pytest.raises(WrongModelFile, match="does not fit as an LTX-2 checkpoint.*It looks like Stable Video"):
        LTX2(str(files / "fp16.safetensors"))
    ltx2.write_folder(tmp_path / "LTX-2")
    with pytest.raises(WrongModelFile, match="its unet makes no model .* a folder of LTX2Pipeline"):
        SVD(str(tmp_path / "LTX-2"))


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.5, 0.999])
def test_a_truncated_file_says_so(files, tmp_path, share):
    whole = (files / "fp16.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelFileBroken, match="cut short"):
        SVD(str(path))


@pytest.mark.parametrize("name, text", [
    ("unet/config.json", "{"), ("unet/config.json", "[]"), ("vae/config.json", None),
    ("unet/config.json", '{"_class_name": "UNet2DConditionModel"}'), ("image_encoder/config.json", "{}"),
    ("unet/config.json", '{"_class_name": "UNetSpatioTemporalConditionModel", "layers_per_block": "x"}'),
    ("image_encoder/config.json", '{"architectures": ["CLIPModel"]}'),
    ("unet/diffusion_pytorch_model.fp16.safetensors", None), ("vae/config.json", "{}"),
])  # fmt: skip
def test_a_folder_that_does_not_fit_says_where(files, tmp_path, name, text):
    shutil.copytree(files / "fp16", tmp_path / "other")
    path = tmp_path / "other" / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(WrongModelFile, match=f"its {name.split('/')[0]} makes no model .*StableVideoDiffusionPipeline"):
        SVD(str(tmp_path / "other"))


def test_stock_diffusers_opens_the_folder_with_the_same_weights(files):
    from diffusers import StableVideoDiffusionPipeline

    pipe = StableVideoDiffusionPipeline.from_pretrained(files / "fp32")
    expected = stock.svd_components(files / "fp32.safetensors")
    assert all(same([getattr(pipe, name).state_dict()], [it.state_dict()]) for name, it in expected.items())


def test_a_weight_that_is_there_twice_is_refused(files, tmp_path):
    """What a copy of a copy left there must not replace the weights in silence."""
    shutil.copytree(files / "fp32", tmp_path / "other")
    folder = tmp_path / "other" / "unet"
    shutil.copy(folder / "diffusion_pytorch_model.safetensors", folder / "diffusion_pytorch_model (1).safetensors")
    with pytest.raises(WrongModelFile, match=r"its unet makes no model \(add_embedding.* is in two of its files"):
        SVD(str(tmp_path / "other"))
    (folder / "diffusion_pytorch_model (1).safetensors").rename(folder / "old.safetensors")
    assert same(bits(SVD(str(tmp_path / "other"))), bits(SVD(str(files / "fp32"))))


def test_weights_in_pieces_are_read_together(files, tmp_path):
    shutil.copytree(files / "fp32", tmp_path / "other")
    whole = tmp_path / "other" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    for number, part in enumerate((names[:700], names[700:]), 1):
        piece = whole.with_name(f"diffusion_pytorch_model-0000{number}-of-00002.safetensors")
        save_file({name: tensors[name] for name in part}, piece)
    whole.unlink()
    assert same(bits(SVD(str(tmp_path / "other"))), bits(SVD(str(files / "fp32"))))
    piece.unlink()
    with pytest.raises(WrongModelFile, match=r"other \(unet\) .*missing \d+ .* of StableVideoDiffusionPipeline"):
        SVD(str(tmp_path / "other"))


def test_a_changed_description_is_another_model(files, tmp_path):
    shutil.copytree(files / "fp16", tmp_path / "other")
    before = memory.identity(str(tmp_path / "other"))
    path = tmp_path / "other" / "vae" / "config.json"
    path.write_text(path.read_text() + " ")
    assert memory.identity(str(tmp_path / "other")) != before
