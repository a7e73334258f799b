"""UMT5 from one file: its weights, its tokenizer, and what is refused."""

from __future__ import annotations

import shutil

import pytest
import torch

wan_files = pytest.importorskip("wan_files")

from transformers import UMT5EncoderModel  # noqa: E402

from vsf_lib.errors import ModelError  # noqa: E402
from vsf_lib.video.single_file import text_encoder as text_file  # noqa: E402
from vsf_lib.video.single_file import tokenizer as tokenizer_file  # noqa: E402

TEXTS = ("a red car on the field", "wheels", "ein  Auto, 東京 (rot:1.4)", "a " * 600)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return wan_files.save_files(tmp_path_factory.mktemp("Textmodelle"))


@pytest.fixture(autouse=True)
def _nothing_cached(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "no cache"))


def state(files):
    return files.pipe.text_encoder.state_dict()


def padded(tokenizer, text):
    return tokenizer(text, padding="max_length", max_length=512, truncation=True, add_special_tokens=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", ["comfy", "wan", "folder", "checkpoint", "fp16"])
def test_every_form_is_what_transformers_makes_of_the_folder(files, tmp_path, form, dtype):
    wanted = UMT5EncoderModel.from_pretrained(files.folder / "text_encoder", torch_dtype=dtype)
    comfy = wan_files.comfy_text_encoder(files.pipe, files.words)
    path = tmp_path / "x.safetensors"
    if form == "wan":
        path = wan_files.write(wan_files.own_text_encoder(state(files)), path)
        shutil.copy(files.words, tmp_path)
    elif form == "folder":
        path = files.folder
    elif form == "fp16":
        halved = {k: v.half() if v.is_floating_point() else v for k, v in comfy.items()}
        path = wan_files.write(halved, path)
        wanted = wanted.float()
        wanted.load_state_dict({k: v.half().float() for k, v in state(files).items()})
        wanted = wanted.to(dtype)
    else:
        path = wan_files.write(comfy, path, "text_encoders.umt5xxl.transformer." * (form == "checkpoint"))
    encoder, tokenizer = text_file.load(text_file.look(str(path)), dtype)
    ours, theirs = encoder.state_dict(), wanted.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name
    assert encoder.shared.weight.data_ptr() == encoder.encoder.embed_tokens.weight.data_ptr()
    assert not encoder.training
    ids = torch.tensor([padded(tokenizer, "a red car")["input_ids"][:9]])
    with torch.no_grad():
        assert torch.equal(encoder(ids)[0], wanted.eval()(ids)[0])


def test_scaled_fp8_is_multiplied(files, tmp_path):
    made = wan_files.scaled(wan_files.comfy_text_encoder(files.pipe, files.words))
    file = wan_files.write(made, tmp_path / "umt5_xxl_fp8_e4m3fn_scaled.safetensors")
    encoder, _ = text_file.load(text_file.look(str(file)), torch.float32)
    wanted = wan_files.unscaled({name: tensor for name, tensor in made.items() if name != "spiece_model"})
    loaded = encoder.state_dict()
    assert loaded.keys() == {*wanted, "encoder.embed_tokens.weight"}
    for name, tensor in wanted.items():
        assert torch.equal(loaded[name], tensor), name
        assert torch.allclose(loaded[name], state(files)[name], atol=0.1 * float(tensor.abs().max()))


def test_the_tokenizer_inside_is_that_of_the_folder(files):
    """The folder's is the fast library's own form of the same words, as in the repositories."""
    inside = text_file.look(str(files.text_encoder)).tokenizer
    rows = len(files.pipe.tokenizer) + 3
    tokenizer = tokenizer_file.load(inside, rows)
    beside = tokenizer_file.load(tokenizer_file.of_folder(files.folder / "text_encoder"), rows)
    for text in TEXTS:
        text = " ".join(text.replace("東京", "").split())  # in words that the small model lacks they differ
        ids = padded(tokenizer, text)
        assert ids["input_ids"] == padded(beside, text)["input_ids"]
        assert ids["attention_mask"] == padded(beside, text)["attention_mask"]
        length = sum(ids["attention_mask"])
        assert ids["input_ids"][length - 1 :] == [1] + [0] * (512 - length)


def test_the_ids_are_those_of_sentencepiece(files):
    import sentencepiece

    tokenizer = tokenizer_file.load(
        text_file.look(str(files.text_encoder)).tokenizer, len(files.pipe.tokenizer)
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(files.words))
    for text in TEXTS:
        assert padded(tokenizer, text)["input_ids"][:300] == [*pieces.encode(text), 1, *[0] * 300][:300]


@pytest.mark.parametrize("place", [".", "tokenizer", "x"])
@pytest.mark.parametrize("form", ["spiece.model", "tokenizer.json", "whole folder"])
def test_a_tokenizer_beside_the_file_is_found(files, tmp_path, place, form):
    file = wan_files.write(wan_files.own_text_encoder(state(files)), tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"put tokenizer\.json or spiece\.model of google/umt5-xxl into"):
        text_file.look(str(file))
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    if form == "spiece.model":
        shutil.copy(files.words, folder)
    elif form == "tokenizer.json":
        shutil.copy(files.folder / "tokenizer" / "tokenizer.json", folder)
    else:
        shutil.copytree(files.folder / "tokenizer", folder, dirs_exist_ok=True)
    _, tokenizer = text_file.load(text_file.look(str(file)), torch.float32)
    wanted = padded(files.pipe.tokenizer, TEXTS[0])["input_ids"]
    assert padded(tokenizer, TEXTS[0])["input_ids"] == wanted


def test_one_that_was_fetched_for_another_program_is_found(files, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "models--google--umt5-xxl"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("abc")
    (kept / "snapshots" / "abc").mkdir(parents=True)
    shutil.copy(files.words, kept / "snapshots" / "abc")
    file = wan_files.write(wan_files.own_text_encoder(state(files)), tmp_path / "x.safetensors")
    assert kept in text_file.look(str(file)).tokenizer.file.parents


def test_another_models_tokenizer_is_refused(files, tmp_path):
    file = wan_files.write(wan_files.own_text_encoder(state(files)), tmp_path / "x.safetensors")
    shutil.copy(files.words, tmp_path)
    source = text_file.look(str(file)).tokenizer
    for rows in (len(files.pipe.tokenizer) - 1, 256384):
        with pytest.raises(ModelError, match=f"but the text encoder has {rows} words"):
            tokenizer_file.load(source, rows)
    from tiny_sd3 import clip_tokenizer

    clip_tokenizer().save_pretrained(tmp_path / "x")
    with pytest.raises(ModelError, match="it is another model's"):
        text_file.load(text_file.look(str(file)), torch.float32)
    (tmp_path / "spiece.model").write_bytes(b"nonsense")
    shutil.rmtree(tmp_path / "x")
    with pytest.raises(ModelError, match=r"cannot read the tokenizer of spiece\.model"):
        text_file.load(text_file.look(str(file)), torch.float32)


def test_a_t5_of_another_family_is_refused(files, tmp_path):
    weights = wan_files.comfy_text_encoder(files.pipe, files.words)
    del weights["encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"]
    file = wan_files.write(weights, tmp_path / "t5xxl_fp16.safetensors")
    with pytest.raises(ModelError, match=r"t5xxl_fp16\.safetensors is a T5 text encoder, but .* UMT5-XXL"):
        text_file.look(str(file))


def test_missing_tensors_are_named(files, tmp_path):
    weights = wan_files.comfy_text_encoder(files.pipe, files.words)
    del weights["encoder.block.1.layer.1.DenseReluDense.wo.weight"]
    file = wan_files.write(weights, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"lacks 1 of \d+ tensors, such as encoder.block.1.layer.1.Dense"):
        text_file.load(text_file.look(str(file)), torch.float32)


def test_a_tensor_with_two_names_is_read_once(files, monkeypatch):
    """It is the largest one: a second copy would be gigabytes."""
    import safetensors

    opened, read = safetensors.safe_open, []

    class Counted:
        def __init__(self, *arguments):
            self._file = opened(*arguments)

        def __enter__(self):
            self._file.__enter__()
            return self

        def __exit__(self, *error):
            return self._file.__exit__(*error)

        def get_tensor(self, name):
            read.append(name)
            return self._file.get_tensor(name)

    text = text_file.look(str(files.text_encoder))
    monkeypatch.setattr(safetensors, "safe_open", Counted)
    encoder, _ = text_file.load(text, torch.float32)
    assert read.count("shared.weight") == 1
    assert "encoder.embed_tokens.weight" in encoder.state_dict()
