"""The memory that loading takes: in onelogit, as a language model, and as the two models of vLLM's conversion script.

Writes a checkpoint of random weights in a real shape, loads it in a new process each way, and prints the peak and the
remaining resident memory above what the process had before, as multiples of the checkpoint's size. The peak is the
kernel's high-water mark (VmHWM), which includes pages of mapped files, so this runs on Linux only.

    python benchmarks/load_memory.py --layers 28 --untied
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from shapes import SHAPES
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from checkpoints import write_checkpoint
from onelogit import Reranker
from onelogit.benchmarking.machine import MemoryUse, peak_memory, reset_peak_memory, resident_bytes
from onelogit.benchmarking.worker_process import WorkerProcess


def load_onelogit(folder: str) -> list[nn.Module]:
    return [Reranker.load(folder, device="cpu").classifier]


def load_language_model(folder: str) -> list[nn.Module]:
    return [AutoModelForCausalLM.from_pretrained(folder, dtype="auto")]


def load_as_vllm_script(folder: str) -> list[nn.Module]:
    """As vLLM's convert_model_to_seq_cls.py."""
    causal = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    classifier = AutoModelForSequenceClassification.from_pretrained(
        folder, ignore_mismatched_sizes=True, num_labels=1, dtype="auto"
    )
    weight = causal.lm_head.weight
    classifier.score.weight.data.copy_((weight[300].float() - weight[301].float()).unsqueeze(0))
    return [causal, classifier]


LOADERS = {
    "onelogit": load_onelogit,
    "the language model, whole": load_language_model,
    "vLLM's script": load_as_vllm_script,
}


class LoadingProbe:
    """Measures one way to load, in a `WorkerProcess`."""

    def measure(self, load: Callable[[str], Sequence[nn.Module]], folder: str) -> MemoryUse:
        """Resident bytes above those before loading, at the peak and afterwards."""
        AutoConfig.from_pretrained(folder)  # what it imports does not count
        device = torch.device("cpu")
        before = reset_peak_memory(device)
        models = load(folder)
        for weight in [weight for model in models for weight in model.parameters()]:
            weight.detach().sum()  # reads all its pages
        return MemoryUse(resident_bytes("VmRSS") - before, peak_memory(device) - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    parser.add_argument("--untied", action="store_true", help="a language-model head apart from the embeddings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shape = SHAPES[options.shape]
        write_checkpoint(Path(folder), shape, layers=options.layers, is_tied=not options.untied)
        size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
        layers = shape.config.num_hidden_layers if options.layers is None else options.layers
        print(f"checkpoint {size / 1e9:.2f} GB, bfloat16, {layers} layers, {'un' * options.untied}tied")
        print(f"{'':32}peak / checkpoint   kept / checkpoint")
        for name, load in LOADERS.items():
            process = WorkerProcess(name, LoadingProbe)
            used = process.call("measure", load, folder)
            process.close()
            print(f"{name:32}{used.peak / size:17.2f}   {used.loaded / size:17.2f}")


if __name__ == "__main__":
    main()
