"""The local judge: a tiny Qwen2.5-VL with random weights, made here from a configuration, and an adapter."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vsf_lib.bench.neggen import qwen
from vsf_lib.bench.neggen.asking import REMINDER, TRIES, ask, question
from vsf_lib.bench.neggen.judges import choose_judge, identity, make_judge
from vsf_lib.bench.neggen.prompts import Item
from vsf_lib.bench.neggen.qwen import Qwen
from vsf_lib.cli import main
from vsf_lib.errors import ModelError

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.skipif(
    not hasattr(transformers, "Qwen2_5_VLForConditionalGeneration"), reason="an older transformers"
)
ITEM = Item("A zebra.", "stripes", "Does the picture show a zebra?", "Are the stripes missing?")
GOOD = '{"answer_1": true, "answer_2": false, "quality": 0.5}'
SPECIAL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% endif %}"
)


def png(shade: int = 90, size: tuple[int, int] = (96, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 255 - shade, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model's folder: bytes as words, two layers on either side."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessor,
    )

    folder = tmp_path_factory.mktemp("qwen")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={sign: place for place, sign in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        additional_special_tokens=SPECIAL,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=TEMPLATE,
    )
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(SPECIAL), strict=True))
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():  # loud enough for the picture to matter to the likeliest word
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(20)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen, "MOST_TOKENS", 12)


def test_it_answers_and_always_the_same(folder: Path, short: None) -> None:
    judge = Qwen.load(str(folder))
    said = judge.reply(png(), [question(ITEM)])
    assert said
    assert (
        judge.reply(png(), [question(ITEM)]) == said == Qwen.load(str(folder)).reply(png(), [question(ITEM)])
    )


def test_what_the_model_gets_is_picture_and_conversation(
    folder: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Qwen.load(str(folder))
    heard: dict[str, Any] = {}
    generate = judge._model.generate
    monkeypatch.setattr(judge._model, "generate", lambda **inputs: heard.update(inputs) or generate(**inputs))
    judge.reply(png(size=(448, 336)), ["first", "own words", REMINDER])
    ids = heard["input_ids"][0].tolist()
    marks = judge._model.config
    assert ids.count(marks.image_token_id) == (448 // 28) * (336 // 28), "a patch of 28 pixels a side each"
    start = ids.index(marks.vision_start_token_id)
    assert ids[start + 1] == marks.image_token_id
    words = judge._tokenizer.decode([x for x in ids if x != marks.image_token_id])
    told = [
        "<|im_start|>user\n<|vision_start|><|vision_end|>first<|im_end|>\n<|im_start|>assistant\nown words",
        f"<|im_end|>\n<|im_start|>user\n{REMINDER}<|im_end|>\n<|im_start|>assistant\n",
    ]
    assert words == "".join(told)
    assert heard["pixel_values"].shape[0] == int(heard["image_grid_thw"].prod())


def test_the_picture_is_looked_at(folder: Path) -> None:
    """The likeliest first word may not change with it, but what the model computes does."""
    judge = Qwen.load(str(folder))
    found = []
    generate = judge._model.generate

    def kept(**inputs: Any) -> Any:
        inputs = {**inputs, "max_new_tokens": 1, "return_dict_in_generate": True, "output_logits": True}
        made = generate(**inputs)
        found.append(made.logits[0])
        return made.sequences

    judge._model.generate = kept
    for shade in (10, 240):
        judge.reply(png(shade), ["x"])
    assert not torch.allclose(*found)


def test_an_adapter_changes_what_it_says_and_who_it_is(folder: Path, short: None, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = Qwen.load(str(folder))
    adapted = peft.get_peft_model(
        base._model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "adapter")
    plain = choose_judge(str(folder), drawn_by="scenes")
    tuned = choose_judge(str(folder), drawn_by="scenes", adapter=str(tmp_path / "adapter"))
    assert identity(plain) != identity(tuned)
    assert identity(plain).items() < identity(tuned).items()
    spoken = [make_judge(spec).ask(png(), ITEM).replies[0] for spec in (plain, tuned)]
    with torch.inference_mode():
        assert spoken[1] == adapted_reply(folder, tmp_path / "adapter")
    assert spoken[0] != spoken[1]


def adapted_reply(folder: Path, adapter: Path) -> str:
    """The same by the adapter merged into the weights."""
    from peft import PeftModel
    from transformers import Qwen2_5_VLForConditionalGeneration

    from vsf_lib.bench.neggen.asking import scaled

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    judge = Qwen.load(str(folder))
    judge._model = PeftModel.from_pretrained(model, adapter).merge_and_unload().eval()
    return judge.reply(scaled(png()), [question(ITEM)])


def test_babble_is_unread(folder: Path, short: None) -> None:
    answer = ask(Qwen.load(str(folder)), png(), ITEM)
    assert answer.values == (None, None, None)
    assert len(answer.replies) == TRIES


def test_a_whole_run_with_it(
    folder: Path, short: None, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("bench", "neggen", "--limit", "1", "--seeds", "1", "--steps", "1", "--methods", "vsf,none")
    out = ("--out", str(tmp_path / "o"), "--judge", str(folder))
    assert main([*words, *out]) == 2
    told, wrong = capsys.readouterr()
    assert "no answer of the judge could be read" in wrong
    assert "vsf: the judge's answer could not be read for 1 of positive, 1 of negative, 1 of quality" in told
    reply = Qwen.reply
    monkeypatch.setattr(Qwen, "reply", lambda *args: reply(*args) and GOOD)
    assert main([*words, *out, "--ask-again"]) == 0
    results = json.loads((tmp_path / "o" / "results.json").read_text("utf-8"))
    assert [row["quality"] for row in results["pictures"]] == [0.5, 0.5]


def test_another_kind_of_model_is_refused_before_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    for content, tells in (
        ('{"model_type": "llama"}', "kind llama"),
        ("{", "no config.json"),
        (None, "no config"),
    ):
        other = tmp_path / tells
        other.mkdir()
        if content is not None:
            (other / "config.json").write_text(content, "utf-8")
        with pytest.raises(ModelError, match=tells):
            identity(choose_judge(str(other), drawn_by="scenes"))
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        content = file.read_bytes()
        (broken / file.name).write_bytes(content[:-100] if file.suffix == ".safetensors" else content)
    with pytest.raises(ModelError, match="cannot load the judge"):
        Qwen.load(str(broken))
