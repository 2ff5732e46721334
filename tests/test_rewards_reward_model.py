"""The reward-model reward, with a tiny random model that is written to disk."""

from __future__ import annotations

import pytest

from r1rl.errors import RewardError
from tests.reward_helpers import load_built_in

torch = pytest.importorskip("torch")
WORDS = [f"w{number}" for number in range(60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Save a one-layer Llama with one output."""
    return save_model(tmp_path_factory.mktemp("model"), num_labels=1)


def save_model(folder, num_labels, pad=True):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "<unk>": 1, **{word: index + 2 for index, word in enumerate(WORDS)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>").save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_labels=num_labels, pad_token_id=0 if pad else None,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)
    return str(folder)


def expected(folder, text):
    """Return the score of one text by the model itself, without padding."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForSequenceClassification.from_pretrained(folder),
    )
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).logits[0, 0].item()


def test_scores_are_the_models_own_whatever_the_batch(folder):
    reward = load_built_in("reward_model")
    answers = ["w1 w2", "w3", " ".join(WORDS[:30]), "w5 w6 w7 w8 w9", ""]
    wanted = [expected(folder, f"w10 w11\n\n{answer}") for answer in answers]
    for batch_tokens in (40, 64, 16384):
        scores = reward(
            answers, ["w10 w11"] * 5, path=folder, device="cpu", batch_tokens=batch_tokens, max_length=40
        )
        assert scores == pytest.approx(wanted, abs=1e-5)
    assert len({round(score, 4) for score in wanted}) == 5


def test_only_the_answer_is_judged(folder):
    reward = load_built_in("reward_model")
    texts = ["<think>w1 w2</think> w3", "w1 w2</think> w3", "w1 w2"]
    scores = reward(texts, ["w10"] * 3, path=folder, device="cpu")
    assert scores[0] == scores[1] == pytest.approx(expected(folder, "w10\n\nw3"), abs=1e-5)
    assert reward(["w1 w2"], ["w10"], "<think>", path=folder, device="cpu") == [None]
    whole = reward(["w1</think> w3"], ["w10"], "<think>", path=folder, device="cpu", answer_only=False)
    assert whole == pytest.approx([expected(folder, "w10\n\n<think>w1</think> w3")], abs=1e-5)


def test_long_texts_keep_their_end(folder):
    scores = load_built_in("reward_model")(
        [" ".join(WORDS)], ["w10"], path=folder, device="cpu", max_length=4
    )
    assert scores == pytest.approx([expected(folder, " ".join(WORDS[-4:]))], abs=1e-5)


def test_sigmoid(folder):
    score = expected(folder, "w10\n\nw1")
    assert load_built_in("reward_model")(
        ["w1"], ["w10"], path=folder, device="cpu", sigmoid=True
    ) == pytest.approx([1 / (1 + 2.718281828459045**-score)], abs=1e-5)


def test_chat_template_is_used(folder, tmp_path):
    import shutil

    from transformers import AutoTokenizer

    shutil.copytree(folder, tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'w20 ' if m.role == 'user' else 'w21 ' }}{{ m.content }} {% endfor %}"
    )
    tokenizer.save_pretrained(tmp_path / "chat")
    scores = load_built_in("reward_model")(["w1"], ["w10"], path=str(tmp_path / "chat"), device="cpu")
    assert scores == pytest.approx([expected(folder, "w20 w10 w21 w1")], abs=1e-5)


def test_model_without_a_padding_token(tmp_path):
    path = save_model(tmp_path, num_labels=1, pad=False)
    scores = load_built_in("reward_model")(["w1 w2 w3", "w4"], ["w10"] * 2, path=path, device="cpu")
    assert scores == pytest.approx([expected(path, "w10 w1 w2 w3"), expected(path, "w10 w4")], abs=1e-5)


def test_what_is_no_reward_model_is_refused(tmp_path):
    reward = load_built_in("reward_model")
    with pytest.raises(RewardError, match="has 3 outputs; a reward model has one"):
        reward(["w1"], ["w2"], path=save_model(tmp_path, num_labels=3), device="cpu")
    with pytest.raises(RewardError, match="can't be loaded"):
        reward(["w1"], ["w2"], path=str(tmp_path / "nothing"), device="cpu")
    with pytest.raises(RewardError, match="must be at least max_length"):
        reward([], [], path="x", batch_tokens=10)


def test_text_without_tokens_is_not_applicable(folder):
    assert load_built_in("reward_model")(["", "w1"], ["", "w2"], path=folder, device="cpu")[0] is None


def test_nothing_is_loaded_for_an_empty_batch():
    assert load_built_in("reward_model")([], [], path="does/not/exist") == []
