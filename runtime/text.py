"""Text to Gato's 32,000 subwords with SentencePiece, an optional package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, MissingDependency, ObservationError
from .spec import TEXT_TOKENS


class TextTokenizer:
    """A SentencePiece model whose ids fill a `text` observation key."""

    def __init__(self, model: Path) -> None:
        """Load the subwords.

        Raises:
            MissingDependency: SentencePiece is not installed.
            ConfigError: the file is absent, is not a model, or has more than 32,000 subwords.
        """
        self._pieces = _load(model)
        if (found := self._pieces.get_piece_size()) > TEXT_TOKENS:
            raise ConfigError(f"{model}: expected at most {TEXT_TOKENS} subwords, found {found}")
        self._pad = self._pieces.pad_id() if self._pieces.pad_id() >= 0 else self._pieces.unk_id()

    def encode(self, text: str, tokens: int) -> NDArray[np.int32]:
        """Ids (tokens,) of a text, filled up with the model's padding (its unknown id where it has none).

        Raises:
            ObservationError: the text is longer than the key.
        """
        ids = self._pieces.encode(text)
        if len(ids) > tokens:
            raise ObservationError(f"expected a text of at most {tokens} tokens, found {len(ids)}: {text!r}")
        return np.array(ids + [self._pad] * (tokens - len(ids)), np.int32)

    def decode(self, ids: NDArray[np.int32]) -> str:
        """The text of ids (tokens,), padding left out."""
        text: str = self._pieces.decode([int(index) for index in ids if index != self._pad])
        return text


def _load(model: Path) -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingDependency("SentencePiece is not installed: pip install 'gatort[text]'") from error
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(model))
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{model}: expected a SentencePiece model: {error}") from error
