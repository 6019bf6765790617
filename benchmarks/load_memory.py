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

from shapes import SHAPES

from checkpoints import write_checkpoint

ONELOGIT = """
import torch, transformers
from onelogit import Reranker
def load(): return Reranker.load(folder, device="cpu")
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
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    parser.add_argument("--untied", action="store_true", help="a language-model head of its own")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shape = SHAPES[options.shape]
        write_checkpoint(Path(folder), shape, layers=options.layers, is_tied=not options.untied)
        size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
        layers = shape.layers if options.layers is None else options.layers
        print(f"checkpoint {size / 1e9:.2f} GB, bfloat16, {layers} layers, {'un' * options.untied}tied")
        print(f"{'':32}peak / checkpoint   kept / checkpoint")
        ways = {"onelogit": ONELOGIT, "the language model, whole": CAUSAL, "vLLM's script": SCRIPT}
        for name, way in ways.items():
            measured = measure(way, Path(folder))
            print(f"{name:32}{measured['peak'] / size:17.2f}   {measured['after'] / size:17.2f}")


if __name__ == "__main__":
    main()
