"""Templates of models are not trusted: they make a prompt, or are refused in words."""

import pytest

from node.engines.worker.chat import PROMPT_CHARS_MAX, ChatTemplate
from wire.errors import ModelRefused

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
SAID = '[{"role":"user","content":"a\\"b"},{"role":"assistant","content":null}]'


def prompt(source: str, messages: str = SAID, tools: str = "") -> str:
    return ChatTemplate(source, NAMES).prompt(messages, tools)


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", '<s>a"b</s>'),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "a\\"b"}, '),
        ("{% for m in messages %}\n{{ m.role }}\n{% endfor %}", "user\nassistant\n"),
        ("{% if tools %}{{ tools[0].name }}{% else %}none{% endif %}", "none"),
        ("{% for m in messages %}{% break %}{% endfor %}{{ 1 }}", "1"),
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{% set n = namespace(x=1) %}{% set n.x = 2 %}{{ n.x }}", "2"),
        ("{{ messages[1].content is none }}", "True"),
    ],
)
def test_a_template_makes_a_prompt(source: str, made: str) -> None:
    assert prompt(source).startswith(made)


def test_tools_are_given_to_the_template() -> None:
    assert prompt("{{ tools[0].name }}", tools='[{"name":"look"}]') == "look"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "no chat template"),
        ("{% for %}", "cannot be read"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "__class__"),
        ("{{ messages.__init__.__globals__ }}", "__init__"),
        ("{{ cycler.__init__.__globals__.os.system('id') }}", "__init__"),
        ("{{ joiner.__init__.__globals__['os'] }}", "__init__"),
        ("{{ messages.append(1) }}", "append"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% for a in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{% for a in range(99999) %}" + "x" * 99 + "{% endfor %}", str(PROMPT_CHARS_MAX)),
        ("{{ 1 / 0 }}", "division"),
        ("{{ messages[0].content + 1 }}", "str"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "recursion"),
    ],
)
def test_a_template_that_means_ill_is_refused_with_its_reason(source: str, reason: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        prompt(source)
    assert reason in str(caught.value)


@pytest.mark.parametrize("messages", ["", "{}", "[", "[" * 100_000, "7"])
def test_messages_that_are_no_list_are_refused(messages: str) -> None:
    with pytest.raises(ModelRefused, match="messages"):
        prompt("{{ 1 }}", messages)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10**9 }}",
        "{{ ('x' * 1000000) * 8000 }}",
        "{{ 7 ** 100000000 }}",
        "{% if false %}{{ 7 ** (10 ** 7) }}{% endif %}{{ 'x'.ljust(1000000000) }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ [1] | random }}",
        "{{ lipsum() }}",
    ],
)
def test_little_never_becomes_much_and_nothing_is_drawn(source: str) -> None:
    with pytest.raises(ModelRefused):
        prompt(source)


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(ModelRefused, match="not be text"):
        prompt("{{ messages[0].content }}", '[{"role":"user","content":"\\ud800"}]')
