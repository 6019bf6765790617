"""A model of transformers -> its logits in float64, also of the steps that its own code always computes in float32."""

import copy
import sys
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import PreTrainedModel

from onelogit.prompts.token_rows import TokenRow


class _TorchOfFloat64(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name == "float32" else getattr(torch, name)


def exact_logits(classifier: PreTrainedModel, rows: list[TokenRow]) -> Tensor:
    """The logit of each row alone, shape (rows,), of a classifier with a converted head."""
    decoder: Any = copy.deepcopy(classifier.base_model).double()
    own_code = sys.modules[type(decoder).__module__]
    weight = classifier.get_parameter("score.weight").double()
    with (
        patch.object(own_code, "torch", _TorchOfFloat64("torch")),
        patch.object(Tensor, "float", Tensor.double),
        torch.inference_mode(),
    ):
        hidden = [decoder(torch.tensor([row.ids]), use_cache=False).last_hidden_state[0, -1] for row in rows]
    assert hidden[0].dtype == torch.float64
    return (torch.stack(hidden) @ weight.T)[:, 0]
