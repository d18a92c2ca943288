"""Our text encoder against transformers on the same weights, and against the padded run of diffusers' pipeline."""

import pytest
import torch
from tiny import gemma
from tiny.stock import dequantized
from xavi9videos.nodes.errors import ModelFileMissing, PromptTooLong, WrongModelFile, WrongTextEncoder
from xavi9videos.nodes.ltx2.text_encoder import TextEncoder, encode

PROMPT = "A red fox runs through fresh snow at dawn; we hear its steps and a distant bell."


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma")
    gemma.write_folder(folder / "gemma-3-12b-it", weights="fp32")
    for weights in ("fp32", "bf16", "fp8", "fp8_legacy"):
        gemma.write_file(folder / f"{weights}.safetensors", weights=weights)
    return folder


@pytest.fixture(scope="module")
def stock(files):
    """Padded states of diffusers' own encode_prompt and its mask, float32."""
    from diffusers import LTX2Pipeline
    from transformers import AutoTokenizer, Gemma3ForConditionalGeneration

    folder = files / "gemma-3-12b-it"
    pipe = LTX2Pipeline.__new__(LTX2Pipeline)
    pipe.tokenizer = AutoTokenizer.from_pretrained(folder)
    pipe.text_encoder = Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return pipe._get_gemma_prompt_embeds(PROMPT, device=torch.device("cpu"))


def states(path):
    encoder = TextEncoder(str(path))
    with torch.inference_mode():
        return encoder.states(encoder.ids(PROMPT))


def distance(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", ["gemma-3-12b-it", "fp32.safetensors"])
def test_states_of_the_real_tokens_are_those_of_the_padded_run(files, stock, name):
    padded, mask = stock
    real = padded[:, mask[0].bool()]
    found = states(files / name)
    assert found.shape == real.shape == (1, mask.sum(), 32 * 49)
    assert distance(found, real) < 5e-5


@pytest.mark.parametrize("weights", ["bf16", "fp8"])
def test_a_file_is_what_transformers_makes_of_the_same_numbers(files, weights):
    from safetensors.torch import load_file
    from transformers import Gemma3TextModel
    from xavi9videos.nodes.ltx2.text_encoder import text_config

    tensors = {
        name.removeprefix("model."): it
        for name, it in dequantized(load_file(files / f"{weights}.safetensors")).items()
        if name.startswith("model.") and not name.endswith("comfy_quant")
    }
    model = Gemma3TextModel(text_config({name: tuple(it.shape) for name, it in tensors.items()})).eval()
    model.load_state_dict(tensors)
    encoder = TextEncoder(str(files / f"{weights}.safetensors"))
    ids = encoder.ids(PROMPT)
    with torch.inference_mode():
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
        assert torch.equal(encoder.states(ids), torch.stack(hidden, -1).flatten(2, 3))


def test_both_layouts_of_fp8_say_the_same(files):
    assert torch.equal(states(files / "fp8.safetensors"), states(files / "fp8_legacy.safetensors"))


def test_a_prompt_is_stripped_and_begins_with_bos(files):
    encoder = TextEncoder(str(files / "fp8.safetensors"))
    assert torch.equal(encoder.ids(f"  {PROMPT}\n"), encoder.ids(PROMPT))
    assert encoder.ids(PROMPT)[0, 0] == 2
    assert encoder.ids("").tolist() == [[2]]


def test_a_prompt_of_five_thousand_words_is_refused(files):
    encoder = TextEncoder(str(files / "fp8.safetensors"))
    with pytest.raises(PromptTooLong, match="LTX-2 takes up to 1024"):
        encoder.ids("word " * 5000)


def test_an_encoder_of_another_size_is_refused(tmp_path):
    path = tmp_path / "gemma-3-4b.safetensors"
    gemma.write_file(path, layers=4)
    with pytest.raises(WrongTextEncoder, match="gives 160 values per token, and the checkpoint takes 1568"):
        encode(str(path), PROMPT, "", 1568)


def test_a_file_that_is_no_gemma_says_what_it_is(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "t5.safetensors"
    save_file({"encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(4, 4)}, path)
    with pytest.raises(WrongModelFile, match="It looks like T5"):
        TextEncoder(str(path))


def test_a_file_without_its_tokenizer_names_it(files, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(files / "bf16.safetensors")
    del tensors["spiece_model"]
    path = tmp_path / "gemma.safetensors"
    save_file(tensors, path)
    with pytest.raises(ModelFileMissing, match="tokenizer.model"):
        TextEncoder(str(path))
    gemma.write_tokenizer(tmp_path / "tokenizer")
    whole = TextEncoder(str(files / "bf16.safetensors"))
    assert torch.equal(TextEncoder(str(path)).ids(PROMPT), whole.ids(PROMPT))
