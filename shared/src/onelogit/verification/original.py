"""A checkpoint -> the logits of its original model, computed without onelogit's code, one prompt at a time.

transformers renders the prompt, the checkpoint's tokenizer tokenises it as a whole, and the causal model of
transformers computes the logits of the whole vocabulary. Sentence Transformers runs a module chain. An adapter is not
merged: PEFT runs it.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.utils.chat_template_utils import render_jinja_template

from onelogit.checkpoints.adapter import Adapter
from onelogit.checkpoints.bidirectional import read_pooled_head
from onelogit.checkpoints.device import find_device_map, is_quantised
from onelogit.checkpoints.hub import files_of_tensors
from onelogit.checkpoints.labels import find_label_rows
from onelogit.checkpoints.load_adapted import whole_class
from onelogit.checkpoints.loader import load_config
from onelogit.checkpoints.lora import load_unmerged
from onelogit.checkpoints.module_chain import read_module_chain
from onelogit.checkpoints.native_classes import native_config
from onelogit.checkpoints.resolve import ResolvedModel, fetch_weights, resolve_model
from onelogit.checkpoints.tensor_names import wrapped_names
from onelogit.checkpoints.text_backbone import has_text_backbone
from onelogit.checkpoints.weights import without_load_report
from onelogit.errors import RecipeError, optional_import
from onelogit.io.progress import tracked, waiting
from onelogit.io.sample_pairs import SamplePair
from onelogit.model_spec import ModelSpec
from onelogit.options import LoadOptions
from onelogit.prompts.tokenizer import stop_sampling
from onelogit.recipes.recipe import Recipe
from onelogit.verification.pooled_original import PooledOriginal

ModelInputs = dict[str, list[int]]  # by name: input_ids and, for some models, token_type_ids

_SEAM = "\ue0f2"  # a private-use character, which no prompt contains
_TRANSFORMERS_OPTIONS = ("attn_implementation", "quantization_config")


class OriginalLogits(NamedTuple):
    """The original's logits for each pair.

    Attributes:
        logits: on the recipe's scale, float32.
        largest_term: the largest absolute value of a true or false token's logit, on the same scale.
        layer_count: number of layers of the backbone.
    """

    logits: list[float]
    largest_term: float
    layer_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalModel:
    """A checkpoint with its recipe and tokenizer; its weights are in memory only while `logits` runs.

    Attributes:
        found: the model, with its small files.
        tokenizer: as transformers loads it.
        instruction: for all pairs; None or "" for none.
        options: for loading the weights; they contain a `dtype`.
        is_chain: whether its head is a module chain.
    """

    found: ResolvedModel
    tokenizer: PreTrainedTokenizerFast
    instruction: str | None
    options: LoadOptions
    is_chain: bool

    @classmethod
    def find(cls, model: str, options: LoadOptions) -> Self:
        """Find the original of a hub id or path.

        Args:
            model: hub id or path.
            options: of `Reranker.load`; the default dtype is float32, or the stored dtype for quantised weights.

        Raises:
            CheckpointError: the model is not found.
            RecipeError: no recipe is known for it.
        """
        found = resolve_model(ModelSpec(model, options=options))
        options = found.spec.load_options
        tokenizer: Any = AutoTokenizer.from_pretrained(
            found.tokenizer_folder,
            config=native_config(found.folder),
            trust_remote_code=options.get("trust_remote_code", False),
        )
        stop_sampling(tokenizer.backend_tokenizer)
        instruction = options.get("instruction")
        return cls(
            found=found,
            tokenizer=tokenizer,
            instruction=found.recipe.default_instruction if instruction is None else instruction,
            options={**options, "dtype": options.get("dtype") or _exact_dtype(found.folder, options)},
            is_chain=read_module_chain(found.texts) is not None,
        )

    @property
    def model(self) -> str:
        """The hub id or path."""
        return self.found.name

    @property
    def recipe(self) -> Recipe:
        """The model's recipe."""
        return self.found.recipe

    def text(self, pair: SamplePair) -> str | None:
        """The whole prompt; None if the tokenizer joins query and document."""
        segments = self._segments(pair)
        return None if segments is None else "".join(segments)

    def inputs(self, pair: SamplePair) -> ModelInputs:
        """The model's arguments for one pair, never truncated.

        The prompt is tokenised as a whole, or in several spans if the model family's reference code does so. The first
        span gets the special tokens that the tokenizer adds.
        """
        segments = self._segments(pair)
        if segments is None:
            # A batch of one: for a single pair, the tokenizer would treat an empty document as no document.
            batch = self.tokenizer([[pair.query, pair.document]], verbose=False)
            return {name: values[0] for name, values in batch.items()}
        bos = self.tokenizer.bos_token
        adds_first = self.recipe.adds_special_tokens and not (bos and segments[0].startswith(bos))
        ids = [self._ids(text, adds_first and index == 0) for index, text in enumerate(segments)]
        return {"input_ids": [id for segment in ids for id in segment]}

    @torch.inference_mode()
    def logits(self, rows: Sequence[ModelInputs], device: str, name: str) -> OriginalLogits:
        """The logit of each row, from the model with its whole head, which is in memory only during this call.

        The progress bar has the given name.
        """
        with waiting(f"loading the original {self.model}"):
            model = self._load(device)
        # Only the last token's logits: the logits of all tokens of a long prompt take gigabytes.
        last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        config = (model[0].model if self.is_chain else model).config
        terms = []
        for row in tracked(rows, name):
            inputs = {name: torch.tensor([value], device=model.device) for name, value in row.items()}
            logits = model(inputs)["scores"] if self.is_chain else model(**inputs, **last_only).logits
            terms.append(self._terms(logits[0], config))
        scale = 1.0 if self.recipe.read_out is None else self.recipe.read_out.scale
        return OriginalLogits(
            logits=[scale * (row[0] - sum(row[1:])) for row in terms],
            largest_term=abs(scale) * max(abs(term) for row in terms for term in row),
            layer_count=config.get_text_config().num_hidden_layers,
        )

    def _segments(self, pair: SamplePair) -> list[str] | None:
        if self.recipe.chat_template is None:
            return None
        messages = [{"role": "system", "content": self.instruction}] if self.instruction else []
        messages += [{"role": "query", "content": pair.query}, {"role": "document", "content": pair.document}]
        variables: Any = {**self.tokenizer.special_tokens_map, "seam": _SEAM}  # as in tokenizer.apply_chat_template
        rendered: Any = render_jinja_template([messages], chat_template=self.recipe.chat_template, **variables)
        return [segment for segment in rendered[0][0].split(_SEAM) if segment]

    def _ids(self, text: str, adds_special_tokens: bool) -> list[int]:
        # verbose=False: no warning for a text that is longer than the model's limit.
        return list(self.tokenizer(text, add_special_tokens=adds_special_tokens, verbose=False).input_ids)

    def _load(self, device: str) -> Any:
        """The model with its whole head; a `CrossEncoder` if the head is a module chain."""
        options: dict[str, Any] = dict(self.options)
        found, trusts_code = fetch_weights(self.found), options.get("trust_remote_code", False)
        if found.adapter is not None and not self.is_chain:
            return self._load_unmerged(found, found.adapter, device)
        folder = found.folder if found.adapter is None else found.modules_folder
        device_map = find_device_map(self.options, load_config(folder, self.options), torch.device(device))
        passed_on = {name: options[name] for name in _TRANSFORMERS_OPTIONS if options.get(name) is not None}
        passed_on |= {"dtype": getattr(torch, options["dtype"]), "device_map": device_map}
        if wrapped := wrapped_names(files_of_tensors(folder), folder):
            passed_on["key_mapping"] = wrapped
        is_multimodal = has_text_backbone(self.found.texts)  # then the whole model computes the original's logits
        if not is_multimodal and (native := native_config(folder)) is not None:
            passed_on["config"] = native
        if self.is_chain:
            with optional_import("sentence_transformers"):
                from sentence_transformers import CrossEncoder  # noqa: PLC0415
            with without_load_report():
                model = CrossEncoder(str(folder), device=device, model_kwargs=passed_on, trust_remote_code=trusts_code)
            return model.eval()
        if pooled := read_pooled_head(self.found.texts):
            model = PooledOriginal.load(folder, pooled, passed_on)
            return (model if device_map is not None else model.to(device)).eval()
        language_model = AutoModelForImageTextToText if is_multimodal else AutoModelForCausalLM
        kind: Any = AutoModelForSequenceClassification if self.recipe.read_out is None else language_model
        model = kind.from_pretrained(folder, trust_remote_code=trusts_code, **passed_on)
        if device_map is None:
            model.to(device)
        return model.eval()

    def _load_unmerged(self, found: ResolvedModel, adapter: Adapter, device: str) -> Any:
        """The base model with PEFT's layers of the adapter, which are not merged."""
        options: Any = {"device": device, **self.options}
        kind = whole_class(found, is_chain=False)
        return load_unmerged(found.folder, adapter, load_config(found.folder, options), options, kind)[0]

    def _terms(self, logits: torch.Tensor, config: Any) -> list[float]:
        """The logits of the true token and, for a difference, the false token; or those of a native head's labels."""
        read_out = self.recipe.read_out
        if read_out is None and len(logits) == 1:
            return [float(logits[0])]
        if read_out is None:
            labels = find_label_rows(config.id2label, config.problem_type, self.options.get("relevant_label"))
            return [float(logits[labels.relevant]), float(logits[labels.irrelevant])]
        ids = [self._token_id(token) for token in (read_out.true, read_out.false) if token is not None]
        return [float(logit) for logit in logits[-1, ids].float()]

    def _token_id(self, token: int | str) -> int:
        if not isinstance(token, str):
            return token
        ids = self._ids(token, False)
        if len(ids) != 1:
            raise RecipeError(f"the answer {token!r} must be one token, but this tokenizer reads it as {ids}")
        return ids[0]


def _exact_dtype(folder: Path, options: LoadOptions) -> str:
    config = load_config(folder, options)
    stored = config.dtype if is_quantised(config) else None
    return "float32" if stored is None else str(stored).removeprefix("torch.")
