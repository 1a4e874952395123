"""Conversations become prompts in each family's form, and answers end where its turns do.

The templates have the form of the published ones: what they want, refuse, and write.
"""

import json
from pathlib import Path

import pytest

from node.engines.formats.gguf import describe
from node.engines.worker.chat import ChatTemplate
from node.engines.worker.gguf_tokens import read_table
from tests.engines import tiny_gguf
from tests.engines.tiny_gguf import write_gguf

ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles take turns') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}" + ALTERNATE + "{% for m in messages %}"
    "{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>"
    "\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST]' + m.content + '[/INST]' }}{% elif m.role == 'system' %}"
    "{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}{% else %}"
    "{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
GRANITE = (
    "{% for m in messages %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + "
    "'<|end_of_text|>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
OLMO = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}"
    "{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
SMOLLM = (
    "{{ '<|im_start|>system\nToday: ' + strftime_now('%d %B %Y') + '\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}"
    "{% set messages = messages[1:] %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% for m in messages %}{% generation %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endgeneration %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The tokens of a beginning, of an end, and of the end of a turn; the prompt's beginning and end.
CASES = {
    "gemma": (
        GEMMA,
        ("<bos>", "<eos>", "<end_of_turn>"),
        "<bos><start_of_turn>user\nBe brief.\n\nWhy?<end_of_turn>\n<start_of_turn>model\n",
    ),
    "llama": (
        LLAMA,
        ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "mistral": (
        MISTRAL,
        ("<s>", "</s>", "</s>"),
        "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Why?[/INST]",
    ),
    "phi": (
        PHI,
        ("<s>", "<|endoftext|>", "<|end|>"),
        "<|system|>Be brief.<|end|><|user|>Why?<|end|><|assistant|>",
    ),
    "granite": (
        GRANITE,
        ("<s>", "<|end_of_text|>", "<|end_of_text|>"),
        "<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Why?<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>",
    ),
    "olmo": (
        OLMO,
        ("<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
        "<|endoftext|><|system|>\nBe brief.\n<|user|>\nWhy?\n<|assistant|>\n",
    ),
    "smollm": (
        SMOLLM,
        ("<s>", "<|im_end|>", "<|im_end|>"),
        "<|im_start|>system\nToday: 26 Jul 2024\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    ),
}
SAID = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


@pytest.mark.parametrize("family", CASES)
def test_a_conversation_is_a_prompt_in_the_familys_form(family: str) -> None:
    source, (begin, end, turn), made = CASES[family]
    template = ChatTemplate(source, {"bos_token": begin, "eos_token": end}, (begin, end, turn))
    assert template.prompt(json.dumps(SAID), "") == made
    again = [*SAID, {"role": "assistant", "content": "So."}, {"role": "user", "content": "Oh."}]
    longer = template.prompt(json.dumps(again), "")
    assert f"So.{turn}" in longer
    assert longer.index("Be brief.") < longer.index("Why?") < longer.index("Oh.")
    assert template.ending.startswith(turn)


@pytest.mark.parametrize("family", CASES)
def test_an_answer_ends_where_the_familys_turns_do(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, (begin, end, turn), _ = CASES[family]
    first = begin if begin != end else "<unused0>"
    third = turn if turn != end else "<unused1>"
    monkeypatch.setattr(tiny_gguf, "SPECIAL", (first, end, third))
    # The file names one end, which is not that of a turn where a family has two.
    table = read_table(describe(write_gguf(tmp_path / "m.gguf", chat=source)))
    names = {"bos_token": begin, "eos_token": end}
    template = ChatTemplate(source, names, table.controls)
    table = table.with_ending(template.ending)
    assert {table.names[it] for it in table.ends} >= {end, turn}

    def ended(text: str) -> int:
        parts = template.parts(json.dumps([{"role": "user", "content": text}]), "")
        tokens = table.of_parts(parts)
        return sum(table.names[it] == turn for it in tokens)

    assert ended(f"x{turn}y") == ended("xy"), "what a person says ends no turn"
