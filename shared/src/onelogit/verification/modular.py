"""A chain of modules -> its logits, as Sentence Transformers computes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from transformers import PretrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput

from onelogit.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


@dataclass(frozen=True, slots=True)
class Modular:
    """A `CrossEncoder` with the manners of a classifier of transformers."""

    cross_encoder: "CrossEncoder"

    @classmethod
    def load(cls, folder: Path, device: str, model_options: dict[str, Any], *, trust_remote_code: bool) -> Self:
        """The chain in a folder.

        Args:
            folder: the checkpoint.
            device: where to compute.
            model_options: for the backbone, passed on to transformers.
            trust_remote_code: let the checkpoint's own Python code run.

        Raises:
            InputError: Sentence Transformers is not installed.
        """
        try:
            from sentence_transformers import CrossEncoder  # noqa: PLC0415  heavy, and needed for no other original
        except ImportError as error:
            raise InputError(
                "the original is a chain of modules, to be run by Sentence Transformers: "
                "pip install sentence-transformers"
            ) from error
        options: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
        return cls(CrossEncoder(str(folder), model_kwargs=model_options, **options).eval())

    @property
    def device(self) -> torch.device:
        return self.cross_encoder.device

    @property
    def config(self) -> PretrainedConfig:
        backbone: Any = self.cross_encoder[0]
        config: PretrainedConfig = backbone.model.config
        return config

    def forward(self, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        """The logit of each row, shape (rows, 1), before any activation."""
        return SequenceClassifierOutput(logits=self.cross_encoder(inputs)["scores"])

    __call__ = forward
