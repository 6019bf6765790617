"""A decoder of transformers with gated delta rules -> the same decoder, able to compute them in a prefix tree.

The layers' own code computes everything but the two steps that mix tokens. In the code these are functions under names
that all such models share: of the module or, in older versions, of the layer.
"""

import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import Any
from weakref import ref

from torch import Tensor, nn
from torch.nn.functional import conv1d, silu
from transformers import PreTrainedModel

from onelogit.engine.attention.context import active_context
from onelogit.engine.attention.recurrent import Function, StateContext

_CONVOLUTION, _RULE = "causal_conv1d_fn", "chunk_gated_delta_rule"
_STATE_OPTIONS = ("initial_state", "output_final_state")
_LAYER_TYPE = "linear_attention"


def has_recurrent_layers(model: PreTrainedModel) -> bool:
    """Whether a model's configuration declares layers with linear attention."""
    return _LAYER_TYPE in (getattr(model.config.get_text_config(), "layer_types", None) or ())


def has_states(model: PreTrainedModel) -> bool:
    """Whether `enable_states` is in effect."""
    return any(map(_is_replaced, model.base_model.modules()))


def enable_states(model: PreTrainedModel) -> bool:
    """Make all layers with linear attention able to begin with states; returns False, and changes none, if one cannot.

    Outside `use_context`, they compute as before.
    """
    types = model.config.get_text_config().layer_types
    decoder: Any = model.base_model
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or len(layers) != len(types):
        return False
    found = [list(_mixers(layer)) for layer, kind in zip(layers, types, strict=True) if kind == _LAYER_TYPE]
    if any(len(mixers) != 1 for mixers in found):
        return False
    for (mixer,) in found:
        mixer.forward = _StatefulForward(mixer)
    return True


def disable_states(model: PreTrainedModel) -> None:
    """Undo `enable_states`."""
    for module in model.base_model.modules():
        if _is_replaced(module):
            del module.forward


def _mixers(layer: nn.Module) -> Iterator[Any]:
    """The modules of a layer that mix tokens by a gated delta rule, and whose forward no other code has replaced."""
    for module in layer.modules():
        code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
        names = getattr(code, "co_names", ())
        mixes = _CONVOLUTION in names and any(name.endswith(_RULE) for name in names)
        if mixes and ("forward" not in vars(module) or _is_replaced(module)):
            yield module


def _is_replaced(module: nn.Module) -> bool:
    return isinstance(vars(module).get("forward"), _StatefulForward)


class _StatefulForward:
    """Calls the module's own forward; in a context with states, with other functions for the two steps.

    Holds a weak reference to the module: a cycle would delay freeing GPU memory until the garbage collector runs.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = ref(module)

    def __call__(self, *args: Any, **options: Any) -> Any:
        module: Any = self._module()
        context = active_context()
        if context is None or context.states is None:
            return type(module).forward(module, *args, **options)
        own = inspect.unwrap(type(module).forward)
        replaced = _replaced_functions(module, own, context.states)
        code, defaults, closure = own.__code__, own.__defaults__, own.__closure__
        forward = FunctionType(code, {**own.__globals__, **replaced}, own.__name__, defaults, closure)
        return forward(_Substituted(module, replaced), *args, **options)

    def __reduce__(self) -> tuple[type["_StatefulForward"], tuple[nn.Module | None]]:
        return _StatefulForward, (self._module(),)  # a copied forward belongs to the copied module


class _Substituted:
    """A module with other functions as attributes."""

    def __init__(self, module: nn.Module, functions: dict[str, Function]) -> None:
        self._module, self._functions = module, functions

    def __getattr__(self, name: str) -> Any:
        return self._functions[name] if name in self._functions else getattr(self._module, name)


def _replaced_functions(module: nn.Module, forward: Function, states: StateContext) -> dict[str, Function]:
    """Functions for the two steps, under the names by which a module's forward calls them."""
    rule_name = next(name for name in forward.__code__.co_names if name.endswith(_RULE))
    own_rule: Function = getattr(module, rule_name, None) or forward.__globals__[rule_name]
    # In older versions of transformers, layers do without a function for it unless a package has one.
    own_convolution: Function = (
        getattr(module, _CONVOLUTION, None) or forward.__globals__.get(_CONVOLUTION) or _convolution
    )
    takes_chunk_size = "chunk_size" in inspect.signature(own_rule).parameters

    def convolution(*args: Any, **options: Any) -> Tensor:
        inputs, *others = args or (options.pop("x"),)
        kept = (others[0] if others else options["weight"]).shape[-1] - 1
        return states.convolve(lambda each: own_convolution(each, *others, **options), inputs, kept)

    def rule(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, None]:
        tokens = {"query": query, "key": key, "value": value, "g": options.pop("g"), "beta": options.pop("beta")}
        options = {name: option for name, option in options.items() if name not in _STATE_OPTIONS}

        def of_rows(query: Tensor, key: Tensor, value: Tensor, chunk_size: int, **rows: Any) -> tuple[Tensor, Tensor]:
            size = {"chunk_size": chunk_size} if takes_chunk_size else {}
            return own_rule(query, key, value, **options, **rows, **size)  # type: ignore[no-any-return]

        return states.apply_rule(of_rows, tokens), None

    return {_CONVOLUTION: convolution, rule_name: rule}


def _convolution(inputs: Tensor, weight: Tensor, bias: Tensor | None, **_: object) -> Tensor:
    """The layer's own convolution, as `conv1d` of its module and then SiLU."""
    channels, width = weight.shape
    output = conv1d(inputs, weight[:, None], bias, padding=width - 1, groups=channels)[:, :, : inputs.shape[-1]]
    return silu(output)
