from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from gatort.runtime.errors import ConfigError, ObservationError
from gatort.runtime.text import TextTokenizer

sentencepiece = pytest.importorskip("sentencepiece")

SENTENCES = ["stack the red block on the blue block", "ignore the green block", "open the gripper", "move the arm away"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 10), model_writer=written, vocab_size=34, minloglevel=2
    )
    path = tmp_path_factory.mktemp("text") / "words.model"
    path.write_bytes(written.getvalue())
    return path


def test_a_text_comes_back_from_its_ids_which_fill_the_key(model: Path) -> None:
    tokenizer = TextTokenizer(model)
    ids = tokenizer.encode("stack the red block", 32)
    assert ids.shape == (32,)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == "stack the red block"


def test_a_text_longer_than_the_key_is_refused_not_cut(model: Path) -> None:
    with pytest.raises(ObservationError, match="at most 2 tokens"):
        TextTokenizer(model).encode("stack the red block on the blue block", 2)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.model"
    path.write_bytes(b"not a model")
    with pytest.raises(ConfigError, match=r"broken\.model: expected a SentencePiece model"):
        TextTokenizer(path)
    with pytest.raises(ConfigError, match=r"absent\.model"):
        TextTokenizer(tmp_path / "absent.model")
