"""Templates with the variables of other libraries: the error and the warning say what to write."""

import re

import pytest

from onelogit import InputError, RecipeError
from onelogit.prompts.template import compile_prompt, warn_of_lost_text
from onelogit.recipes.families import FAMILIES
from support.rows import encoder_of
from support.tiny import byte_level_tokenizer

QUERY, DOCUMENT = "{{ messages[-2].content }}", "{{ messages[-1].content }}"
BOTH = [f"write {QUERY} where the query belongs and {DOCUMENT} where the document belongs"]


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("Q: {{ query }} D: {{ document }}", ["({{ query }} and {{ document }} are no variables there)", *BOTH]),
        ("Q: {{query}} D: {{ passage | trim }}", ["({{query}} and {{ passage | trim }} are no", *BOTH]),
        ("Q: {query} D: {doc}", ["({query} and {doc} are no variables there)", *BOTH]),
        (f"Q: {{{{ query }}}} D: {DOCUMENT}", ["writes no query ({{ query }}", f"write {QUERY} where the query"]),
        (f"Q: {QUERY} D: {{{{ document }}}}", ["writes no document ({{ document }}", f"write {DOCUMENT} where the"]),
        ("{{ text }}", ["({{ text }} is no variable there)", *BOTH]),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", BOTH),
        ("{{ document.text }}", ["'document' is undefined", f"{QUERY} is the query, and {DOCUMENT} the document"]),
        ("{{ messages[5].content }}", ["no element 5", f"{QUERY} is the query, and {DOCUMENT} the document"]),
    ],
)
def test_an_error_says_how_to_write_the_texts(template: str, parts: list[str]):
    with pytest.raises(RecipeError) as error:
        compile_prompt(template, False)

    for part in parts:
        assert part in str(error.value)
    assert "None" not in str(error.value)


@pytest.mark.parametrize("variable", ["{{ instruction }}", "{{instruct}}", "{{ task | trim }}"])
def test_a_variable_that_is_lost_is_a_warning(variable: str, caplog: pytest.LogCaptureFixture):
    warn_of_lost_text(f"{variable} {QUERY} {DOCUMENT}")

    (message,) = caplog.messages
    assert f"writes {variable}, which is empty" in message
    assert "the message with the role system" in message


@pytest.mark.parametrize(
    "template",
    [
        "{% set query = messages[-2].content %}{{ query }} {{ messages[-1].content }}",
        "{% for document in messages %}{{ document.content }} {% endfor %}",
        f"{{text}} {QUERY} {DOCUMENT}",
        f"{{% if messages[0].role == 'system' %}}{{{{ messages[0].content }}}}{{% endif %}}{QUERY} {DOCUMENT}",
        *(recipe.chat_template for recipe in FAMILIES if recipe.chat_template is not None),
    ],
)
def test_a_template_that_loses_nothing_gives_no_warning(template: str, caplog: pytest.LogCaptureFixture):
    warn_of_lost_text(template)
    compile_prompt(template, False)

    assert not [each for each in caplog.messages if re.search("which is empty", each)]


def test_the_place_of_an_instruction_is_shown_and_works():
    with pytest.raises(InputError, match="takes no instruction, but 'Say.' was given; to give it a place") as error:
        encoder_of(byte_level_tokenizer(), f"{QUERY} {DOCUMENT}", instruction="Say.")

    (place,) = re.findall(r"write (.*) into the chat template", str(error.value))
    assert encoder_of(byte_level_tokenizer(), f"{place}{QUERY} {DOCUMENT}", instruction="Say.").takes_instruction
