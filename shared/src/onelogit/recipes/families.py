"""The supported model families: only facts, with their sources."""

from dataclasses import replace

from onelogit.recipes import templates
from onelogit.recipes.recipe import ReadOut, Recipe

_QWEN3_RERANKER = Recipe(
    family="qwen3-reranker",
    chat_template=templates.QWEN3_TEMPLATE,
    read_out=ReadOut(true="yes", false="no"),
    activation="sigmoid",
    default_instruction=templates.QWEN3_INSTRUCTION,
    licence="apache-2.0",
    models=("Qwen/Qwen3-Reranker-0.6B", "Qwen/Qwen3-Reranker-4B", "Qwen/Qwen3-Reranker-8B"),
    name_pattern=r"(?<!prism-)qwen3-reranker-",
    source="https://huggingface.co/Qwen/Qwen3-Reranker-0.6B",
)

FAMILIES = (
    _QWEN3_RERANKER,
    replace(
        _QWEN3_RERANKER,
        family="kure-reranker",
        licence=None,
        models=("nlpai-lab/KURE-Reranker-base",),
        name_pattern=r"kure-reranker",
        source="https://huggingface.co/nlpai-lab/KURE-Reranker-base",
    ),
    replace(
        _QWEN3_RERANKER,
        family="coreb-code-reranker",
        licence=None,
        models=("hq-bench/coreb-code-reranker",),
        name_pattern=r"coreb-code-reranker",
        source="https://huggingface.co/hq-bench/coreb-code-reranker",
    ),
    replace(
        _QWEN3_RERANKER,
        family="pixie-spell-reranker",
        models=("telepix/PIXIE-Spell-Reranker-Preview-0.6B",),
        name_pattern=r"pixie-spell-reranker",
        # The authors' own evaluation writes this prompt for it; the model card names the licence.
        source="https://github.com/BM-K/Korean-MTEB-Retrieval-Evaluators/blob/main/evaluate_reranker.py",
    ),
    Recipe(
        family="qwen3-vl-reranker",
        chat_template=templates.QWEN3_VL_TEMPLATE,
        read_out=ReadOut(true="yes", false="no"),
        activation="sigmoid",
        default_instruction=templates.QWEN3_VL_INSTRUCTION,
        licence="apache-2.0",
        models=("Qwen/Qwen3-VL-Reranker-2B", "Qwen/Qwen3-VL-Reranker-8B"),
        name_pattern=r"qwen3-vl-reranker",
        # Texts only: images need the whole model, on a server.
        source="https://github.com/QwenLM/Qwen3-VL-Embedding/blob/main/src/models/qwen3_vl_reranker.py",
    ),
    Recipe(
        family="prism-reranker",
        chat_template=templates.PRISM_TEMPLATE,
        read_out=ReadOut(true="yes", false="no"),
        activation="sigmoid",
        default_instruction=templates.PRISM_INSTRUCTION,
        max_tokens=10240,
        licence="mit",
        models=(
            "infgrad/Prism-Qwen3.5-Reranker-0.8B",
            "infgrad/Prism-Qwen3.5-Reranker-2B",
            "infgrad/Prism-Qwen3.5-Reranker-4B",
            "infgrad/Prism-Qwen3.5-Reranker-9B",
            "infgrad/Prism-Qwen3-Reranker-4B-exp",  # one model card for all five
        ),
        name_pattern=r"prism-qwen3(\.5)?-reranker",
        source="https://huggingface.co/infgrad/Prism-Qwen3.5-Reranker-0.8B",
    ),
    Recipe(
        family="ctxl-rerank-v2",
        chat_template=templates.CTXL_TEMPLATE,
        # By id: token 0 is "!" in the 1b and 2b models and "<unk>" in the 6b one.
        read_out=ReadOut(true=0),
        max_tokens=32768,
        licence="cc-by-nc-sa-4.0",
        models=(
            "ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b",
            "ContextualAI/ctxl-rerank-v2-instruct-multilingual-2b",
            "ContextualAI/ctxl-rerank-v2-instruct-multilingual-6b",
        ),
        name_pattern=r"ctxl-rerank-v2-",
        source="https://huggingface.co/ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b",
    ),
    Recipe(
        family="mxbai-rerank-v2",
        chat_template=templates.MXBAI_TEMPLATE,
        read_out=ReadOut(true="1", false="0"),
        licence="apache-2.0",
        models=("mixedbread-ai/mxbai-rerank-base-v2", "mixedbread-ai/mxbai-rerank-large-v2"),
        # Not "...-v2-seq": those conversions have two labels and a changed prompt.
        name_pattern=r"mxbai-rerank-(base|large)-v2$",
        source="https://github.com/mixedbread-ai/mxbai-rerank/blob/main/mxbai_rerank/mxbai_rerank_v2.py",
    ),
    Recipe(
        family="bge-reranker-v2-gemma",
        chat_template=templates.BGE_GEMMA_TEMPLATE,
        read_out=ReadOut(true="Yes"),
        max_tokens=1024,
        licence="apache-2.0",
        models=("BAAI/bge-reranker-v2-gemma",),
        name_pattern=r"bge-reranker-v2-gemma",
        source="https://huggingface.co/BAAI/bge-reranker-v2-gemma",
    ),
    Recipe(
        family="zerank-1",
        chat_template=templates.ZERANK_1_TEMPLATE,
        read_out=ReadOut(true="Yes", scale=0.2),
        activation="sigmoid",
        licence="apache-2.0",
        models=(
            "zeroentropy/zerank-1-reranker",
            "zeroentropy/zerank-1",
            "zeroentropy/zerank-1-small-reranker",
            "zeroentropy/zerank-1-small",
        ),
        name_pattern=r"zerank-1(-small)?(-reranker)?(-seq)?$",
        source="https://huggingface.co/zeroentropy/zerank-1-small-reranker",
    ),
    Recipe(
        family="zerank-2",
        chat_template=templates.ZERANK_2_TEMPLATE,
        read_out=ReadOut(true="Yes", scale=0.2),
        activation="sigmoid",
        licence="apache-2.0",
        models=("zeroentropy/zerank-2-reranker", "zeroentropy/zerank-2"),
        name_pattern=r"zerank-2(-reranker)?(-seq)?$",
        source="https://huggingface.co/zeroentropy/zerank-2-reranker",
    ),
    Recipe(
        family="followir",
        chat_template=templates.FOLLOWIR_TEMPLATE,
        # By id: "true" and "false" in Mistral's vocabulary. They follow a space that ends the prompt, so they are not
        # "▁true" and "▁false", which a tokenizer makes of the words alone.
        read_out=ReadOut(true=3307, false=3952),
        activation="sigmoid",
        max_tokens=2048,
        licence="apache-2.0",
        models=("jhu-clsp/FollowIR-7B",),
        name_pattern=r"followir-7b",
        source="https://huggingface.co/jhu-clsp/FollowIR-7B",
    ),
    Recipe(
        family="rankllama",
        chat_template=templates.RANKLLAMA_TEMPLATE,
        read_out=None,
        adds_special_tokens=False,
        max_tokens=4096,
        licence="llama2",
        models=(
            "castorini/rankllama-v1-7b-lora-passage",
            "castorini/rankllama-v1-7b-lora-doc",
            "castorini/rankllama-v1-13b-lora-passage",
        ),
        name_pattern=r"rankllama-v1",
        source="https://github.com/texttron/tevatron/blob/main/examples/rankllama/data.py",
    ),
    Recipe(
        family="llama-nemotron-rerank",
        chat_template=templates.NEMOTRON_TEMPLATE,
        read_out=None,
        licence="nvidia-open-model-license, llama3.2",
        models=("nvidia/llama-nemotron-rerank-1b-v2",),
        architectures=("LlamaBidirectionalForSequenceClassification",),
        name_pattern=r"llama-nemotron-rerank-(?!vl)",
        source="https://github.com/NVIDIA-NeMo/Automodel/blob/main/nemo_automodel/components/datasets/llm/retrieval_collator.py",
    ),
)
