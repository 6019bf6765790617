"""How much memory loading costs: onelogit, against the language model whole, and the two models of vLLM's script.

Writes a checkpoint of random weights in a real shape, loads it in a fresh process each way, and prints the peak of
resident memory above what the process held before, over the checkpoint's size. Peak memory is the kernel's own
high-water mark (VmHWM), pages of the mapped file included, so it runs on Linux.

    python benchmarks/load_memory.py --layers 28 --untied
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ONELOGIT = """
import torch, transformers
from onelogit import Reranker, ReadOut, Recipe
from onelogit.prompts import QWEN3_TEMPLATE
import onelogit.reranker
recipe = Recipe(family="bench", chat_template=QWEN3_TEMPLATE, read_out=ReadOut(true=300, false=301), source="bench")
def load(): return Reranker.load(folder, device="cpu", recipe=recipe)
"""
CAUSAL = """
import torch, transformers
def load(): return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
"""
SCRIPT = """
import torch, transformers
def load():  # what vLLM's convert_model_to_seq_cls.py does
    causal = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, ignore_mismatched_sizes=True, num_labels=1, dtype="auto")
    weight = causal.lm_head.weight
    classifier.score.weight.data.copy_((weight[300].float() - weight[301].float()).unsqueeze(0))
    return causal, classifier
"""
MEASURE = """
import json, sys
folder = sys.argv[1]
{way}
from transformers import AutoConfig
AutoConfig.from_pretrained(folder)
def resident(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024
before = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # sets the high-water mark back to what is resident now
model = load()
parameters = model if isinstance(model, tuple) else (getattr(model, "classifier", model),)
touched = sum(float(weight.sum()) for each in parameters for weight in each.parameters())
print(json.dumps({{"peak": resident("VmHWM") - before, "after": resident("VmRSS") - before}}))
"""


def write_checkpoint(folder: Path, layers: int, is_tied: bool) -> int:
    """A Qwen3-Reranker-0.6B of random weights in bfloat16; returns its size in bytes."""
    import torch  # noqa: PLC0415  the measuring processes are fresh, and this one stays small until it is needed
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=151669,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=is_tied,
        pad_token_id=0,
    )
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
    model.to_empty(device="cpu").to(torch.bfloat16)
    for weight in model.parameters():
        weight.data.normal_(0, 0.02)
    model.tie_weights()
    model.save_pretrained(folder, max_shard_size="1GB")
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def measure(way: str, folder: Path) -> dict[str, int]:
    """Peak and lasting memory in bytes of one way to load, in a process of its own."""
    command = [sys.executable, "-c", MEASURE.format(way=way), str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    measured: dict[str, int] = json.loads(ran.stdout.splitlines()[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--untied", action="store_true", help="a language-model head of its own")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = write_checkpoint(Path(folder), options.layers, is_tied=not options.untied)
        print(f"checkpoint {size / 1e9:.2f} GB, bfloat16, {options.layers} layers, {'un' * options.untied}tied")
        print(f"{'':32}peak / checkpoint   kept / checkpoint")
        ways = {"onelogit": ONELOGIT, "the language model, whole": CAUSAL, "vLLM's script": SCRIPT}
        for name, way in ways.items():
            measured = measure(way, Path(folder))
            print(f"{name:32}{measured['peak'] / size:17.2f}   {measured['after'] / size:17.2f}")


if __name__ == "__main__":
    main()
