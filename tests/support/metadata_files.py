"""Configuration files of Sentence Transformers rerankers, as in published models."""

from onelogit.recipes.templates import QWEN3_INSTRUCTION, QWEN3_TEMPLATE

TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"


def modules(*types: str, folders: tuple[str, ...] = ("", "1_LogitScore")) -> list[dict[str, object]]:
    chain = enumerate(zip(types, folders, strict=False))
    return [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (kind, path) in chain]


def logit_score_files(true: int, false: int | None, template: str = QWEN3_TEMPLATE) -> dict[str, object]:
    """The files of `[Transformer, LogitScore]` over a causal model."""
    forward = {"method": "forward", "method_output_name": "logits"}
    return {
        "modules.json": modules(TRANSFORMER, LOGIT_SCORE),
        "1_LogitScore/config.json": {"true_token_id": true, "false_token_id": false},
        "sentence_bert_config.json": {
            "transformer_task": "text-generation",
            "modality_config": {"text": forward, "message": {**forward, "format": "flat"}},
            "module_output_name": "causal_logits",
            "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
        },
        "config_sentence_transformers.json": {
            "model_type": "CrossEncoder",
            "activation_fn": "torch.nn.modules.linear.Identity",
            "prompts": {"query": QWEN3_INSTRUCTION},
            "default_prompt_name": "query",
        },
        "chat_template.jinja": template,
    }
