"""Models that have no one-logit form: what they are, how they rank, and what to take instead. Only facts."""

from dataclasses import dataclass

_POINTWISE = "Use a pointwise reranker instead, such as Qwen/Qwen3-Reranker-0.6B"
_ENCODER = "Use a reranker instead, such as BAAI/bge-reranker-v2-m3 or Qwen/Qwen3-Reranker-0.6B"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsupportedKind:
    """A kind of model that is refused.

    Attributes:
        models: names of such models, for people.
        scoring: how they rank.
        reason: why that is not one logit; a sentence that begins with "it" and has no full stop.
        instead: what to do, as a sentence without a full stop.
        licence: of the named models; None if they differ.
        architecture: regular expression of the architecture in config.json, matched case-insensitively; None if the
            architecture does not tell.
        name: regular expression of the model's name, which counts only if its files do not tell what it is.
    """

    models: str
    scoring: str
    reason: str
    instead: str
    licence: str | None = None
    architecture: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        """What to say after "it has no one-logit form: "."""
        return f"{self.reason}. {self.instead}"


ENCODER_DECODER = UnsupportedKind(
    models="castorini/monot5-*, duot5-*, LiT5-*, RankT5, FLAN-T5, KaLM-Embedding/KaLM-Reranker-V1-*",
    scoring="an encoder reads the pair, and a decoder writes the answer: true − false (monoT5), or a list (LiT5)",
    reason="it is an encoder-decoder: its score comes from a separate decoder, which is not loaded",
    instead=f"{_POINTWISE}, or run it with its own code (rerankers or rank_llm for monoT5)",
    architecture=(
        r"^(M?T5|UMT5|LongT5|SwitchTransformers|T5Gemma|M?Bart|BigBirdPegasus|Pegasus|Led(For|Model)|Marian|Blenderbot|"
        r"ProphetNet|XLMProphetNet|FSMT|M2M100|NllbMoe|Plbart)|EncoderDecoder|KaLM"
    ),
    name=r"KaLM-Reranker|mono-?t5|duo-?t5|rank-?t5|flan-?t5|LiT5",
)
EMBEDDER = UnsupportedKind(
    models="Qwen/Qwen3-Embedding-*, BAAI/bge-m3, intfloat/e5-mistral-7b-instruct, all other models of Transformer, "
    "Pooling and Normalize",
    scoring="one vector for the query, one for each document; their cosine",
    reason="it is an embedding model, which reads query and document separately",
    instead=_ENCODER,
    name=r"^ (?!.*rerank)(.*embed|.*sentence-t5|e5-|.*-e5-|multilingual-e5|bge-(m3|small|base|large)|gte-(?!.*rerank)|"
    r"all-(MiniLM|mpnet|distil)|.*GritLM)",
)
LATE_INTERACTION = UnsupportedKind(
    models="colbert-ir/colbertv2.0, lightonai/GTE-ModernColBERT-v1, all other models of PyLate",
    scoring="one vector for each token; the sum of the best matches",
    reason="it is a late-interaction model (ColBERT), which reads query and document separately into a vector for each "
    "token",
    instead=f"{_ENCODER}, or rank with PyLate",
    architecture=r"ColBERT|^ColPali|^ColQwen|^ColModernVBert",
    name=r"^ (?!.*rerank).*colbert",
)
SPARSE = UnsupportedKind(
    models="naver/splade-*, prithivida/Splade_PP_*, opensearch-project/opensearch-neural-sparse-*",
    scoring="a weight for each word of the vocabulary, of query and document; their product",
    reason="it is a sparse embedding model (SPLADE), which reads query and document separately",
    instead=_ENCODER,
    architecture=r"splade",
    name=r"^ (?!.*rerank).*(splade|neural-sparse)",
)
MULTIMODAL = UnsupportedKind(
    models="InternVL, LLaVA, Qwen3-VL-MoE, and other multimodal models than Gemma 3, Qwen2-VL, Qwen2.5-VL, Qwen3-VL "
    "and Qwen3.5",
    scoring="in many ways, after a prompt with images",
    reason="it is a multimodal model whose text backbone is not known to be equal to a language model",
    instead="Run it with sentence_transformers.CrossEncoder, or serve it and name its url",
    architecture=r"ForConditionalGeneration|VLFor|ForVision|ImageText",
)
MULTIMODAL_ADAPTER = UnsupportedKind(
    models="LoRA adapters of multimodal models",
    scoring="as the model that they are merged into",
    reason="it is an adapter of a multimodal model, whose text backbone has other names for its layers",
    instead="Use the whole model with the adapter merged into it (merge_and_unload() of PEFT), saved in a folder",
)
MULTIMODAL_QUANTISED = UnsupportedKind(
    models="multimodal models with quantised weights",
    scoring="as the unquantised model",
    reason="it is a quantised multimodal model, and its quantisation is declared for the layers of the whole model",
    instead="Use the unquantised model, or serve this one and name its url",
)
NO_HEAD = UnsupportedKind(
    models="google-bert/bert-base-uncased, FacebookAI/xlm-roberta-base, and other models before fine-tuning",
    scoring="not at all: nothing in them was trained to rank",
    reason="it has no head that was trained to rank: it is a base model, an embedding model, or one for another task",
    instead=f"{_ENCODER}, or fine-tune it first",
    architecture=r"(ForMaskedLM|ForPreTraining|ForTokenClassification|ForQuestionAnswering|ForMultipleChoice|"
    r"ForNextSentencePrediction|(?<!LMHead)Model)$",
)
REWARD = UnsupportedKind(
    models="Qwen2.5-Math-RM, InternLM2-Reward, and other reward models with a class of their own",
    scoring="a head rates the answer at the end of a chat",
    reason="it is a reward model, which rates an answer in a chat and not a document's relevance to a query",
    instead=_POINTWISE,
    architecture=r"Reward|WithNormal_Weights$",
)
CLASSIFIER = UnsupportedKind(
    models="facebook/bart-large-mnli, cross-encoder/nli-*, cardiffnlp/twitter-roberta-base-sentiment, ...",
    scoring="one logit for each of three or more classes, such as contradiction, neutral and entailment",
    reason="it classifies into {count} labels ({labels}){task}; a reranker's head must have one logit, or two labels, "
    "of which one means relevant",
    instead=_ENCODER,
)
_GENERATOR = "it answers in generated text, {}, so there is no single position with its score"

# In the order in which they are tried. The first whose architecture, or else whose name, matches gives the reason.
UNSUPPORTED = (
    UnsupportedKind(
        models="jinaai/jina-reranker-v3, jinaai/jina-reranker-v3.5",
        scoring="all documents in one prompt; the cosine of projected tokens",
        reason="it ranks all documents of a list in one prompt, by the cosine of projected tokens",
        instead=f"Run it with its own code (model.rerank). {_POINTWISE}",
        licence="CC-BY-NC-4.0",
        architecture=r"^JinaForRanking",
        name=r"jina-reranker-v3",
    ),
    UnsupportedKind(
        models="jinaai/jina-reranker-m0",
        scoring="a two-layer head of a vision-language model",
        reason="it is a vision-language model with a two-layer head",
        instead="Run it with its own code (model.compute_score)",
        licence="CC-BY-NC-4.0",
        architecture=r"^JinaVL",
        name=r"jina-reranker-m0",
    ),
    UnsupportedKind(
        models="BAAI/bge-reranker-v2-minicpm-layerwise",
        scoring="one head for each layer from the eighth",
        reason="it has one head for each layer, in custom code",
        instead="Use BAAI/bge-reranker-v2-gemma, or run it with FlagEmbedding",
        licence="Apache-2.0",
        architecture=r"^LayerWiseMiniCPM",
        name=r"minicpm-layerwise",
    ),
    UnsupportedKind(
        models="BAAI/bge-reranker-v2.5-gemma2-lightweight",
        scoring="one head for each layer; tokens are merged between layers",
        reason="it has one head for each layer and merges tokens between layers",
        instead="Use BAAI/bge-reranker-v2-gemma, or run it with FlagEmbedding",
        licence="Gemma",
        architecture=r"^CostWiseGemma",
        name=r"gemma2-lightweight",
    ),
    UnsupportedKind(
        models="Querit/Querit, Querit/Querit-4B",
        scoring="a head at the token [CLS], with a mask of its own",
        reason="it uses a custom attention mask and a head at its [CLS] token",
        instead="Run it with its own code",
        licence="Apache-2.0",
        architecture=r"^Querit",
        name=r" Querit",
    ),
    ENCODER_DECODER,
    UnsupportedKind(
        models="nvidia/llama-nemotron-rerank-vl-1b-v2, and other rerankers of NeMo Automodel for images",
        scoring="a head after the mean of states that all tokens of text and images see",
        reason="it is a multimodal model, and its text backbone is not converted",
        instead="Use nvidia/llama-nemotron-rerank-1b-v2 for texts, or serve it with vLLM",
        architecture=r"VLBidirectional|NemotronVL",
        name=r"nemotron-rerank-vl",
    ),
    UnsupportedKind(
        models="nvidia/llama-nemotron-embed-1b-v2, nvidia/llama-embed-nemotron-8b",
        scoring=EMBEDDER.scoring,
        reason=EMBEDDER.reason,
        instead="Use a reranker instead, such as nvidia/llama-nemotron-rerank-1b-v2",
        architecture=r"Bidirectional\w*Model$",
    ),
    UnsupportedKind(
        models="nvidia/Nemotron-3.5-Rerank-8B-BF16",
        scoring="a head of its own code; its prompt and pooling are not known here",
        reason="it needs its own code, whose prompt and head are not known here",
        instead="Run it with trust_remote_code=True in transformers",
        name=r"nemotron-3\.5-rerank",
    ),
    MULTIMODAL,
    UnsupportedKind(
        models="lightonai/LightOn-rerank-PW-*, without the files that declare their prompt",
        scoring="yes − no after a prompt that only their files for Sentence Transformers contain",
        reason="it does not declare its prompt in these files, and the prompt is not known here",
        instead="Use it with all of its files, modules.json and the templates among them",
        licence="Apache-2.0",
        name=r"LightOn-rerank-PW",
    ),
    LATE_INTERACTION,
    SPARSE,
    REWARD,
    UnsupportedKind(
        models="castorini/rank_zephyr_7b_v1_full, rank_vicuna_7b_v1, first_*, liuwenhan/RankMistral100, RankGPT",
        scoring="listwise: it writes the order of a window of documents, such as [2] > [1] > [3]",
        reason="it ranks a list as a whole, by writing the order of the documents in its prompt",
        instead=f"{_POINTWISE}, or run it with rank_llm",
        name=r"(?<![a-z])rank[-_]?(zephyr|vicuna|gpt|mistral\d)|^ first_(mistral|qwen3|alpha)(?!.*rerank)",
    ),
    UnsupportedKind(
        models="hltcoe/Rank-K-32B, ielabgroup/Rank-R1-*, Setwise-*, liuwenhan/reasonrank-*",
        scoring="listwise or setwise, after reasoning",
        reason=_GENERATOR.format("after reasoning about a list of documents"),
        instead=f"{_POINTWISE}, or run it with its own code",
        name=r"^ rank-?(k|r1)-|setwise|^ reason-?rank-|^ rearank-|^ re3rank-",
    ),
    UnsupportedKind(
        models="jhu-clsp/rank1-*",
        scoring="pointwise: true − false, but only after a reasoning that it writes for each document",
        reason=_GENERATOR.format("true or false after reasoning about each document"),
        instead=f"{_POINTWISE}, or jhu-clsp/FollowIR-7B, which answers true or false at once",
        licence="MIT",
        name=r"^ rank1-(?!.*rerank)",
    ),
    UnsupportedKind(
        models="lightblue/lb-reranker-0.5B-v1.0",
        scoring="pointwise: it writes a number from 1 to 7; the mean over all seven",
        reason="it answers with a number from 1 to 7, so its score is the mean of seven answers and not one logit",
        instead=_POINTWISE,
        licence="Apache-2.0",
        name=r"lb-reranker",
    ),
    UnsupportedKind(
        models="lightonai/LightOn-rerank-LW-*, ByteDance/ListConRanker, Alibaba-NLP/E2Rank-*",
        scoring="listwise",
        reason="it ranks a list as a whole",
        instead=_POINTWISE,
        architecture=r"^ListConRanker",
        name=r"LightOn-rerank-LW|ListConRanker| E2Rank",
    ),
    EMBEDDER,
)
