"""A random tiny Qwen3 -> the same with a circuit in its first two layers that detects query words in a document.

Without it, a model of this size was still at chance level after 400 steps; with it, it was far above after 50. Layer 0
tells each token in which part of the prompt it is, layer 1 lets it look for the same word in the query. From there on
all weights are trained freely.
"""

import torch
from torch import Tensor, nn
from transformers import Qwen3ForCausalLM

EMBEDDING_STD = 0.15
OUTPUT_SCALE = 0.1  # the output of random layers must not hide the embedding before layer 1 has compared it
# Features of the residual stream with a meaning from the start; the others are random.
RARITY, ALWAYS, IN_DOCUMENT, AFTER_QUERY_MARK, HELD = range(5)
FIRST_FREE = 5


def add_circuit(model: Qwen3ForCausalLM, rarity: Tensor, word_ids: Tensor, document_mark: int, query_mark: int) -> None:
    """Set the embedding and some heads of the first two layers, in place.

    Args:
        model: with two key heads and four query heads per layer, and tied embeddings.
        rarity: one value per token, with mean 0 and variance 1.
        word_ids: one id per token, equal for tokens that differ only in case or a space; their embeddings start close.
        document_mark: the token before the document.
        query_mark: the token before the query.
    """
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        words = torch.randn(embedding.shape)[word_ids]
        words = words + 0.3 * torch.randn(embedding.shape)
        words[:, :FIRST_FREE] = 0
        words[:, RARITY] = rarity
        words[:, ALWAYS] = 2
        embedding.copy_(EMBEDDING_STD * words)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= OUTPUT_SCALE
            layer.mlp.down_proj.weight *= OUTPUT_SCALE
        marks, matches = (layer.self_attn for layer in model.model.layers[:2])
        _find_marks(marks, words[document_mark], words[query_mark])
        _find_equal_tokens(matches)


def _still_dimensions(head_dim: int) -> list[int]:
    """The dimensions of a head that rotary embeddings rotate by less than a radian over some thousand tokens."""
    half = head_dim // 2
    return [*range(half // 2, half), *range(half + half // 2, 2 * half)]


def _find_marks(attention: nn.Module, document_mark: Tensor, query_mark: Tensor) -> None:
    """Let heads 2 and 3 attend to the marks and write IN_DOCUMENT and AFTER_QUERY_MARK."""
    dim = attention.head_dim
    still = _still_dimensions(dim)
    key, value = attention.k_proj.weight[dim : 2 * dim], attention.v_proj.weight[dim : 2 * dim]
    key.zero_()
    key[still] = 0.5 * nn.init.orthogonal_(torch.empty(len(still), key.shape[1]))
    for place, mark, feature in ((0, document_mark, IN_DOCUMENT), (1, query_mark, AFTER_QUERY_MARK)):
        direction = mark.clone()
        direction[:FIRST_FREE] = 0
        direction /= direction.norm()
        query = attention.q_proj.weight[(2 + place) * dim : (3 + place) * dim]
        query.zero_()
        query[still[place], ALWAYS] = 1
        key[still[place]] = direction
        value[place] = direction
        attention.o_proj.weight[feature] = 0
        attention.o_proj.weight[feature, (2 + place) * dim + place] = 0.05
    _sharpen(attention)


def _find_equal_tokens(attention: nn.Module) -> None:
    """Let heads 0 and 1 attend to the same word outside the document, and write HELD if it is in the query."""
    dim = attention.head_dim
    still = _still_dimensions(dim)
    key, value = attention.k_proj.weight[:dim], attention.v_proj.weight[:dim]
    rows = torch.zeros_like(key)
    rows[still[1:], FIRST_FREE:] = nn.init.orthogonal_(torch.empty(len(still) - 1, key.shape[1] - FIRST_FREE))
    key.copy_(rows)
    key[still[0], IN_DOCUMENT] = -1.5
    value[0] = 0
    value[0, [AFTER_QUERY_MARK, IN_DOCUMENT]] = torch.tensor([1.0, -1.0])
    attention.o_proj.weight[HELD] = 0
    for head in range(attention.num_key_value_groups):
        query = attention.q_proj.weight[head * dim : (head + 1) * dim]
        query.copy_(rows)
        query[still[0], ALWAYS] = 2
        attention.o_proj.weight[HELD, head * dim] = 0.1
    _sharpen(attention)


def _sharpen(attention: nn.Module) -> None:
    attention.q_norm.weight.fill_(1.4)
    attention.k_norm.weight.fill_(1.4)
