"""A shape and a call -> the least operations and bytes by arithmetic and, with two rates, the least time.

Nothing is measured here. The rates are those that gpu.py measures, or a data sheet's.

    python benchmarks/roofline.py --flop-per-s 989e12 --bytes-per-s 4.8e12
"""

import argparse
from typing import NamedTuple

from shapes import SHAPES
from transformers import Qwen3Config
from workload import needed_flop

# Tokens before the document (shared by all prompts of a call) and after it, in the Qwen3 tokenizer with a query of 8.
PREFIX, SUFFIX = 71, 9
CASES = (("qwen3-0.6b", 90), ("qwen3-0.6b", 256), ("qwen3-0.6b", 512), ("qwen3-4b", 512))
DOCUMENTS = 100
BFLOAT16 = 2  # bytes
# Bytes read and written for each number in a step of transformers' Qwen3, one kernel per operation. Its norm passes
# through float32 seven times; onelogit's is one kernel.
NORM, OUR_NORM, ROTARY, SILU_AND_PRODUCT, SUM = 36, 4, 20, 10, 6
HEADINGS = (
    *(f"{DOCUMENTS} documents", "tokens", "TFLOP", "GB plain", "GB fused", "GB gathered", "ms plain", "ms fused"),
    *("share plain", "share fused", "peer padded, plain: ms", "over fused"),
)


class CallMinimum(NamedTuple):
    """The least work of one call.

    Attributes:
        tokens: distinct ones.
        flop: as `needed_flop` counts them.
        plain_bytes: through memory between the matrix products, with one kernel per operation except norms.
        fused_bytes: as `plain_bytes`, with element-wise operations between two products fused into one kernel.
        gathered_bytes: read and written to lay out keys and values for attention.
    """

    tokens: int
    flop: int
    plain_bytes: int
    fused_bytes: int
    gathered_bytes: int

    def seconds(self, flop_per_s: float, bytes_per_s: float, *, is_fused: bool) -> float:
        moved = (self.fused_bytes if is_fused else self.plain_bytes) + self.gathered_bytes
        return self.flop / flop_per_s + moved / bytes_per_s


def prefix_tree_minimum(config: Qwen3Config, document_tokens: int) -> CallMinimum:
    """For a hundred documents after one shared prefix, as onelogit computes them."""
    row = PREFIX + document_tokens + SUFFIX
    keys = PREFIX + DOCUMENTS * row
    gathered_bytes = 2 * 2 * BFLOAT16 * config.num_key_value_heads * config.head_dim * keys * config.num_hidden_layers
    return _minimum(config, [(0, row), *[(PREFIX, row)] * (DOCUMENTS - 1)], OUR_NORM, gathered_bytes)


def padded_minimum(config: Qwen3Config, document_tokens: int) -> CallMinimum:
    """For the same prompts, each computed by itself; their lengths are equal, so there is no padding."""
    return _minimum(config, [(0, PREFIX + document_tokens + SUFFIX)] * DOCUMENTS, NORM, gathered_bytes=0)


def _minimum(config: Qwen3Config, new: list[tuple[int, int]], norm_bytes: int, gathered_bytes: int) -> CallMinimum:
    heads, key_value = (config.head_dim * n for n in (config.num_attention_heads, config.num_key_value_heads))
    plain = norm_bytes * (2 * config.hidden_size + heads + key_value) + ROTARY * (heads + key_value)
    plain += SILU_AND_PRODUCT * config.intermediate_size + 2 * SUM * config.hidden_size
    # One kernel each for sum and norm, for norm and rotary embedding, and for SiLU and product.
    fused = BFLOAT16 * (2 * 4 * config.hidden_size + 2 * (heads + key_value) + 3 * config.intermediate_size)
    tokens = sum(stop - start for start, stop in new)
    flop = needed_flop(new, config)
    layer_tokens = tokens * config.num_hidden_layers
    return CallMinimum(tokens, flop, plain * layer_tokens, fused * layer_tokens, gathered_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flop-per-s", type=float, required=True, help="of matrix products")
    parser.add_argument("--bytes-per-s", type=float, required=True, help="of copies, read and written")
    rates = vars(parser.parse_args())
    print("| " + " | ".join(HEADINGS) + " |")
    print("|---" * len(HEADINGS) + "|")
    for name, length in CASES:
        config = SHAPES[name].config
        ours, padded = prefix_tree_minimum(config, length), padded_minimum(config, length)
        product_s = ours.flop / rates["flop_per_s"]
        plain_s, fused_s = (ours.seconds(**rates, is_fused=is_fused) for is_fused in (False, True))
        padded_s = padded.seconds(**rates, is_fused=False)
        moved = " | ".join(f"{each / 1e9:.1f}" for each in (ours.plain_bytes, ours.fused_bytes, ours.gathered_bytes))
        print(
            f"| {name}, {length} | {ours.tokens:,} | {ours.flop / 1e12:.1f} | {moved} | {plain_s * 1e3:.1f} | "
            f"{fused_s * 1e3:.1f} | {product_s / plain_s:.2f} | {product_s / fused_s:.2f} | {padded_s * 1e3:.1f} | "
            f"{padded_s / fused_s:.2f} |"
        )


if __name__ == "__main__":
    main()
