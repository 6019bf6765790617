"""The names of a checkpoint's tensors -> patterns that remove the names of wrappers around the trained model. No torch.

Training code that saves a wrapped model stores the wrapper's attribute in every name: `torch.compile` as `_orig_mod`,
DistributedDataParallel as `module`, FSDP as `_fsdp_wrapped_module`, PEFT as `base_model.model`.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from onelogit.errors import CheckpointError

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
_PEFT = "base_model.model."
_ADAPTER = re.compile(r"(?:^|\.)(?:base_layer|lora_\w+|modules_to_save|original_module)(?:\.|$)")


def wrapped_names(names: Iterable[str], folder: Path) -> dict[str, str]:
    """Each name that contains wrappers, as a pattern, with the name without them: `key_mapping` of transformers.

    Raises:
        CheckpointError: the tensors are those of an unmerged adapter, or two have the same name without wrappers.
    """
    names = [*names]
    if adapter := next((name for name in names if _ADAPTER.search(name)), None):
        raise CheckpointError(
            f"the weights in {folder} are those of a PEFT adapter (LoRA) beside its model ({adapter}); merge it with "
            "`merge_and_unload()` of peft, and save the result"
        )
    counts = Counter(without_wrappers(name) for name in names)
    if twice := next((name for name, count in counts.items() if count > 1), None):
        stored = [name for name in names if without_wrappers(name) == twice]
        raise CheckpointError(f"{folder} has two tensors for {twice}: {' and '.join(stored)}; remove the wrong one")
    return {f"^{re.escape(name)}$": plain for name in names if (plain := without_wrappers(name)) != name}


def without_wrappers(name: str) -> str:
    """A tensor's name in the trained model itself."""
    return _WRAPPERS.sub("", name).removeprefix(_PEFT)
