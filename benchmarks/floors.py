"""A shape and a call -> what it takes at least, by arithmetic: operations, bytes, launches; and with two rates, a time.

Nothing is measured here. The rates are those that gpu.py measures, or a data sheet's.

    python benchmarks/floors.py --flop-per-s 989e12 --bytes-per-s 4.8e12
"""

import argparse
from typing import NamedTuple

from counting import needed_flop
from shapes import SHAPES, Shape, config_of

# Of a prompt in the Qwen3 tokenizer, with a query of 8 tokens: what all prompts of a call share, and what follows the
# document.
PREFIX, SUFFIX = 71, 9
CASES = (("qwen3-0.6b", 90), ("qwen3-0.6b", 256), ("qwen3-0.6b", 512), ("qwen3-4b", 512))
DOCUMENTS = 100
HALF = 2  # bytes of a bfloat16
# Read and written, in bytes, for each number that a step of transformers' Qwen3 takes, launched one by one; its norm
# passes through float32 seven times, ours is one kernel.
NORM, OUR_NORM, ROTARY, SILU_AND_PRODUCT, SUM = 36, 4, 20, 10, 6
HEADINGS = (
    *(f"{DOCUMENTS} documents", "tokens", "TFLOP", "GB plain", "GB fused", "GB gathered", "ms plain", "ms fused"),
    *("share plain", "share fused", "peer padded, plain: ms", "over fused"),
)


class Floor(NamedTuple):
    """Of one call.

    Attributes:
        tokens: distinct ones.
        flop: needed operations, as `needed_flop` counts them.
        plain_bytes: through memory between the matrix products, each operation but a norm's a launch of its own.
        fused_bytes: the same, what is element-wise fused into one pass between two products.
        gathered_bytes: keys and values laid out for attention, read and written; in token-major order, no more.
    """

    tokens: int
    flop: int
    plain_bytes: int
    fused_bytes: int
    gathered_bytes: int


def prefix_tree_floor(shape: Shape, document_tokens: int) -> Floor:
    """Of a hundred documents behind one prefix, as onelogit computes them."""
    own = document_tokens + SUFFIX
    fresh = [(0, PREFIX + own), *[(PREFIX, PREFIX + own)] * (DOCUMENTS - 1)]
    keys = PREFIX + DOCUMENTS * (PREFIX + own)
    key_value = shape.key_value_heads * shape.head_dim
    return _floor(shape, fresh, OUR_NORM, gathered_bytes=2 * 2 * HALF * key_value * keys * shape.layers)


def padded_floor(shape: Shape, document_tokens: int) -> Floor:
    """Of the same prompts, each by itself; of equal lengths, so that there is no padding."""
    return _floor(shape, [(0, PREFIX + document_tokens + SUFFIX)] * DOCUMENTS, NORM, gathered_bytes=0)


def _floor(shape: Shape, fresh: list[tuple[int, int]], norm_bytes: int, gathered_bytes: int) -> Floor:
    tokens = sum(stop - start for start, stop in fresh)
    flop = needed_flop(fresh, config_of(shape, shape.layers, is_tied=True))
    passes = tokens * shape.layers
    return Floor(tokens, flop, _plain_bytes(shape, norm_bytes) * passes, _fused_bytes(shape) * passes, gathered_bytes)


def _plain_bytes(shape: Shape, norm_bytes: int) -> int:
    heads, key_value = shape.heads * shape.head_dim, shape.key_value_heads * shape.head_dim
    norms = norm_bytes * (2 * shape.hidden + heads + key_value)
    return norms + ROTARY * (heads + key_value) + SILU_AND_PRODUCT * shape.intermediate + 2 * SUM * shape.hidden


def _fused_bytes(shape: Shape) -> int:
    """Sum and norm in one pass, norm and rotary embedding in one, SiLU and product in one."""
    heads, key_value = shape.heads * shape.head_dim, shape.key_value_heads * shape.head_dim
    return HALF * (2 * 4 * shape.hidden + 2 * (heads + key_value) + 3 * shape.intermediate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flop-per-s", type=float, required=True, help="of matrix products")
    parser.add_argument("--bytes-per-s", type=float, required=True, help="of copies, read and written")
    options = parser.parse_args()
    print("| " + " | ".join(HEADINGS) + " |")
    print("|---" * len(HEADINGS) + "|")
    for name, length in CASES:
        mine, theirs = prefix_tree_floor(SHAPES[name], length), padded_floor(SHAPES[name], length)
        product_s = mine.flop / options.flop_per_s
        plain_s, fused_s = (
            product_s + (moved + mine.gathered_bytes) / options.bytes_per_s
            for moved in (mine.plain_bytes, mine.fused_bytes)
        )
        padded_s = theirs.flop / options.flop_per_s + theirs.plain_bytes / options.bytes_per_s
        moved = " | ".join(f"{each / 1e9:.1f}" for each in (mine.plain_bytes, mine.fused_bytes, mine.gathered_bytes))
        print(
            f"| {name}, {length} | {mine.tokens:,} | {mine.flop / 1e12:.1f} | {moved} | {plain_s * 1e3:.1f} | "
            f"{fused_s * 1e3:.1f} | {product_s / plain_s:.2f} | {product_s / fused_s:.2f} | {padded_s * 1e3:.1f} | "
            f"{padded_s / fused_s:.2f} |"
        )


if __name__ == "__main__":
    main()
