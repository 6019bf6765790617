"""The names of a checkpoint's tensors -> patterns that give them the names of the model that is loaded. No torch.

Training code that saves a wrapped model stores the wrapper's attribute in every name: `torch.compile` as `_orig_mod`,
DistributedDataParallel as `module`, FSDP as `_fsdp_wrapped_module`, PEFT as `base_model.model`. A multimodal model
stores its text backbone as `model.language_model`; older versions of transformers, as `language_model.model`.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from onelogit.errors import CheckpointError

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
_PEFT = "base_model.model."
_BACKBONE = re.compile(r"^(?:model\.language_model|language_model\.model|language_model)\.(?!lm_head\.)")
_HEAD = re.compile(r"^language_model\.(?=lm_head\.)")
_ADAPTER = re.compile(r"(?:^|\.)(?:base_layer|lora_\w+|modules_to_save|original_module)(?:\.|$)")


def wrapped_names(names: Iterable[str], folder: Path, *, is_text_part: bool = False) -> dict[str, str]:
    """Each name that contains wrappers, as a pattern, with the name without them: `key_mapping` of transformers.

    Args:
        names: of all tensors.
        folder: of the checkpoint, for messages.
        is_text_part: whether only the text backbone of a multimodal model is loaded, as a model of its own.

    Raises:
        CheckpointError: the tensors are those of an unmerged adapter, or two have the same name without wrappers.
    """
    names = [*names]
    if adapter := next((name for name in names if _ADAPTER.search(name)), None):
        raise CheckpointError(
            f"the weights in {folder} are those of a PEFT adapter (LoRA) beside its model ({adapter}); merge it with "
            "`merge_and_unload()` of peft, and save the result"
        )
    new_name = text_name if is_text_part else without_wrappers
    counts = Counter(map(new_name, names))
    if twice := next((name for name, count in counts.items() if count > 1), None):
        stored = [name for name in names if new_name(name) == twice]
        raise CheckpointError(f"{folder} has two tensors for {twice}: {' and '.join(stored)}; remove the wrong one")
    return {f"^{re.escape(name)}$": plain for name in names if (plain := new_name(name)) != name}


def without_wrappers(name: str) -> str:
    """A tensor's name in the trained model itself."""
    return _WRAPPERS.sub("", name).removeprefix(_PEFT)


def text_name(name: str) -> str:
    """The name that a tensor of a multimodal model's text backbone has in the backbone itself; others are unchanged."""
    return _HEAD.sub("", _BACKBONE.sub("model.", without_wrappers(name)))
