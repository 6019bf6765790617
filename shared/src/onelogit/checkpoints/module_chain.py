"""The small files of a checkpoint -> the head that its modules form: a pooling, and layers to one logit. No torch.

Sentence Transformers stores some rerankers as modules after a plain backbone: Transformer, Pooling, then Dense and
LayerNorm, the last Dense with one output (cross-encoder/ettin-reranker-*).
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from onelogit.checkpoints.metadata import SmallFiles, join_path, parse_json
from onelogit.errors import UnsupportedModelError
from onelogit.recipes.unsupported import EMBEDDER

Pooling = Literal["cls", "mean", "lasttoken"]

_STATE = "sentence_embedding"  # the name of the value that one module passes to the next
_ACTIVATIONS = ("GELU", "Identity", "ReLU", "SiLU", "Sigmoid", "Tanh")
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseLayer:
    """A linear layer and an activation, which is named by its class in `torch.nn`; the tensors are in `folder`."""

    folder: str
    inputs: int
    outputs: int
    has_bias: bool
    activation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NormLayer:
    """A layer normalisation with torch's default epsilon; its tensors are in `folder`."""

    folder: str
    inputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleChain:
    """A head made of modules: the hidden states are pooled into one state, which the layers turn into one logit."""

    pooling: Pooling
    layers: tuple[DenseLayer | NormLayer, ...]


def read_module_chain(texts: SmallFiles) -> ModuleChain | None:
    """The module chain that `modules.json` and the files it points to declare; None for a checkpoint without one.

    Raises:
        UnsupportedModelError: the chain has a module that is not supported, or gives several labels.

    Source: sentence_transformers 6.2, sentence_transformer/modules/{pooling,layer_norm}.py, base/modules/dense.py.
    """
    modules = parse_json(texts, "modules.json", kind=list)
    if len(modules) < 2 or _type_name(modules[1]) != "Pooling":
        return None
    layers = []
    for module in modules[2:]:
        folder = str(module.get("path", ""))
        config = parse_json(texts, join_path(folder, "config.json"))
        read_layer = _dense_layer if _type_name(module) == "Dense" else _norm_layer
        layers.append(read_layer(folder, config, module is modules[-1]))
    if not layers:
        raise _unsupported("it ends in a pooled state instead of a score")
    _check_transformer(texts, str(modules[0].get("path", "")))
    return ModuleChain(pooling=_pooling(texts, str(modules[1].get("path", ""))), layers=tuple(layers))


def _type_name(module: dict[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _check_transformer(texts: SmallFiles, folder: str) -> None:
    settings = parse_json(texts, join_path(folder, "sentence_bert_config.json"))
    outputs = {form.get("method_output_name") for form in (settings.get("modality_config") or {}).values()}
    if not outputs <= {None, "last_hidden_state"}:
        raise _unsupported(f"its backbone outputs {sorted(map(str, outputs))}, not the last hidden state")


def _pooling(texts: SmallFiles, folder: str) -> Pooling:
    config = parse_json(texts, join_path(folder, "config.json"))
    old = [mode for mode, is_on in config.items() if mode.startswith("pooling_mode_") and is_on]
    mode: Any = config.get("pooling_mode", [_OLD_POOLINGS.get(each, each) for each in old] or "mean")
    mode = mode[0] if isinstance(mode, list) and len(mode) == 1 else mode
    if mode not in get_args(Pooling):
        raise _unsupported(f"its pooling is {mode!r}, not one of {', '.join(get_args(Pooling))}")
    return mode  # type: ignore[no-any-return]


def _dense_layer(folder: str, config: dict[str, Any], is_last: bool) -> DenseLayer:
    source = config.get("module_input_name", _STATE)
    target = config.get("module_output_name") or source
    if is_last and source == target == _STATE and config.get("out_features") != 1:
        raise UnsupportedModelError(
            f"{EMBEDDER.reason} (modules.json ends in a state instead of a score). {EMBEDDER.instead}"
        )
    if source != _STATE or target != ("scores" if is_last else _STATE) or config.get("use_residual"):
        raise _unsupported(f"{folder} maps {source!r} to {target!r}, or has a residual connection")
    if is_last and config.get("out_features") != 1:
        raise _unsupported(f"{folder} gives {config.get('out_features')} labels, but a reranker's head gives one logit")
    path = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = path.rpartition(".")[2]
    if not path.startswith("torch.nn.") or activation not in _ACTIVATIONS:
        raise _unsupported(f"{folder} has the activation {path!r}, not one of {', '.join(_ACTIVATIONS)}")
    return DenseLayer(
        folder=folder,
        inputs=_positive_integer(folder, config, "in_features"),
        outputs=_positive_integer(folder, config, "out_features"),
        has_bias=bool(config.get("bias", True)),
        activation=activation,
    )


def _norm_layer(folder: str, config: dict[str, Any], is_last: bool) -> NormLayer:
    if is_last:
        raise _unsupported("it ends in a LayerNorm instead of a score")
    return NormLayer(folder=folder, inputs=_positive_integer(folder, config, "dimension"))


def _positive_integer(folder: str, config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    if type(value) is not int or value < 1:
        raise _unsupported(f"{folder}/config.json has no valid {name}: {value!r}")
    return value


def _unsupported(reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"modules.json does not give one logit in a supported way: {reason}; "
        "sentence_transformers.CrossEncoder can run it"
    )
