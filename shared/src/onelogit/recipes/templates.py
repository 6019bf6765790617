"""The prompts of the families: chat templates with the roles `query` and `document`, and `system` for an instruction.

`{{ seam }}` renders empty: it marks the end of one tokenizer call and the beginning of the next in reference code.
"""


def _template(text: str) -> str:
    """A template that may use the variables instruction, query and document. Jinja drops one newline at its end."""
    return (
        '{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") | first'
        " | default(instruction) -%}\n"
        '{%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}\n'
        '{%- set document = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%}\n'
        + text
    )


# The prompt that vLLM writes for a model that declares no template: the query followed by the document.
PLAIN_TEMPLATE = _template("{{ query }}{{ document }}")

QWEN3_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

# Byte for byte the same as the file on the hub, so that an export can be compared with it.
QWEN3_TEMPLATE = """\
{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") | first | default("Given a web search query, retrieve relevant passages that answer the query") -%}
{%- set query_text = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}
{%- set document_text = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%}
<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: {{ instruction }}
<Query>: {{ query_text }}
<Document>: {{ document_text }}<|im_end|>
<|im_start|>assistant
<think>

</think>


"""  # noqa: E501

QWEN3_VL_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."

# As the reference code writes it: no line ends before the query, and no space precedes it.
QWEN3_VL_TEMPLATE = _template(f"""\
<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. \
Note that the answer can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: {{{{ instruction or "{QWEN3_VL_INSTRUCTION}" }}}}<Query>:{{{{ query }}}}
<Document>:{{{{ document }}}}<|im_end|>
<|im_start|>assistant

""")

PRISM_INSTRUCTION = """\
Judge if the document is relevant to the query. Reply "yes" or "no".
On "yes", also emit:
<contribution>One sentence covering every core point the document contributes to the query, without elaboration.\
</contribution>
<evidence>Self-contained rewrite of the query-relevant content. Rules:
- Faithful: rephrase only; add or infer nothing.
- Self-contained: evidence alone must fully answer the query.
- Concise: drop query-irrelevant background.
- Verbatim (no translation): proper nouns, terms, abbreviations, numbers, dates, code, URLs.
- Output language: multilingual doc → query's language; else doc's language.</evidence>"""

PRISM_TEMPLATE = _template("""\
<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. <|im_end|>
<|im_start|>user
<Instruct>: {{ instruction }}
<Query>: {{ query }}
<Document>: {{ document }}<|im_end|>
<|im_start|>assistant
<think>

</think>


""")

CTXL_TEMPLATE = _template("""\
Check whether a given document contains information helpful to answer the query.
<Document> {{ document }}
<Query> {{ query }}{{ " " ~ instruction if instruction }} ??""")

MXBAI_TEMPLATE = _template("""\
<|im_start|>system
You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>
<|im_start|>user
{{ seam }}{{ "instruction: " ~ instruction ~ "\\n" if instruction }}query: {{ query }}{{ seam }}
{{ seam }}document: {{ document }}{{ seam }}
{{ seam }}You are a search relevance expert who evaluates how well documents match search queries. \
For each query-document pair, carefully analyze the semantic relationship between them, then provide your binary \
relevance judgment (0 for not relevant, 1 for relevant).
Relevance:<|im_end|>
<|im_start|>assistant

""")

BGE_GEMMA_TEMPLATE = _template("""\
A: {{ query }}{{ seam }}
{{ seam }}B: {{ document }}{{ seam }}
{{ seam }}Given a query A and a passage B, determine whether the passage contains an answer to the query by \
providing a prediction of either 'Yes' or 'No'.""")

ZERANK_1_TEMPLATE = _template("""\
<|im_start|>system
{{ query | trim }}<|im_end|>
<|im_start|>user
{{ document | trim }}<|im_end|>
<|im_start|>assistant

""")

ZERANK_2_TEMPLATE = _template("""\
<|im_start|>system
{% if instruction -%}
<query>{{ query | trim }}</query>
<instruction>{{ instruction }}</instruction>
{%- else -%}
{{ query | trim }}
{%- endif %}<|im_end|>
<|im_start|>user
{{ document | trim }}<|im_end|>
<|im_start|>assistant

""")

# Its reference code writes one BOS token, and its tokenizer adds another one. The prompt ends in a space.
FOLLOWIR_TEMPLATE = _template("""\
<s><s> [INST] You are an expert Google searcher, whose job is to determine if the following document is relevant to \
the query (true/false). Answer using only one word, one of those two choices.

Query: {{ query }}{{ " " ~ instruction if instruction }}
Document: {{ document }}
Relevant (only output one word, either "true" or "false"): [/INST] """)

# Each text begins with a BOS token and nothing comes after the document, not even an EOS token.
RANKLLAMA_TEMPLATE = _template("<s>query: {{ query }}{{ seam }}<s>document: {{ document }}")

NEMOTRON_TEMPLATE = _template("question:{{ query }} \n \n passage:{{ document }}")
