"""A hostile chat template ends with a clear error of its own request, soon and in little memory.

All of them are rendered in one process of its own, whose memory is bounded and whose time for each
is taken: what would take all memory or for ever is seen, and harms nobody.
"""

import json
import subprocess
import sys

import pytest

from node.engines.worker.chat import ChatTemplate
from node.engines.worker.template_sandbox import CHARS_MAX, STEPS_MAX, VALUE_CHARS_MAX

SAID = '[{"role":"user","content":"hi"},{"role":"assistant","content":null}]'
MEMORY_BYTES = 512 << 20
# Of a core; the slowest takes a tenth of it here.
CPU_S = 10.0
TOO_MUCH = "does too much"
MANY = "{% set ns = namespace(x='ab', l=['ab'], t=('a','b'), d={}) %}{% for i in range(60) %}"
SHOWN = "{% endfor %}{{ ns.x }}{{ ns.l }}"
LONG = "{% set s = 'x' * 1000000 %}"


def doubled(step: str, shown: str = "{{ ns.x }}{{ ns.l }}") -> str:
    """A template that grows what it has sixty times."""
    return f"{MANY}{{% set {step} %}}{{% endfor %}}{shown}"


LISTS = "ns.l = [ns.l, ns.l]"
TUPLES = "ns.t = (ns.t, ns.t)"
HOSTILE: dict[str, tuple[str, str]] = {
    # Formats that make much out of little, by whichever way they are reached.
    "format": ("{{ '{:>1500000000}'.format(1) }}", "'format'"),
    "format_map": ("{{ '{a:>1500000000}'.format_map({'a': 1}) }}", "'format_map'"),
    "format as an item": ("{{ '{:>1500000000}'['format'](1) }}", "'format'"),
    "format of markup": ("{{ ('{:>1500000000}' | safe).format(1) }}", "'format'"),
    "the filter format": ("{{ '%1500000000d' | format(1) }}", "format"),
    "the filter attr": ("{{ 'x' | attr('format') }}", "attr"),
    "percent": ("{{ '%1500000000d' % 1 }}", "not formatted"),
    "percent of markup": ("{{ ('%1500000000d' | safe) % 1 }}", "not formatted"),
    # Doubling, sixty times over.
    "~": (doubled("ns.x = ns.x ~ ns.x"), TOO_MUCH),
    "+": (doubled("ns.x = ns.x + ns.x"), TOO_MUCH),
    "*": (doubled("ns.x = ns.x * 2"), "too often"),
    "replace": (doubled("ns.x = ns.x.replace('a', ns.x)"), "replace would make too much"),
    "the filter replace": (doubled("ns.x = ns.x | replace('a', ns.x)"), "would make too much"),
    "join": (doubled("ns.x = ns.x.join([ns.x, ns.x])"), "join would make too much"),
    "the filter join": (doubled("ns.x = [ns.x, ns.x] | join(ns.x)"), "join would make too much"),
    "join of what is made lazily": (
        doubled("ns.l = ns.l + ns.l", "{{ ''.join(ns.l | map('upper')) }}"),
        TOO_MUCH,
    ),
    "map and join": (
        "{{ (['x' * 100000] * 10) | map('upper') | map('lower') | join('y' * 100000) }}",
        "join would make too much",
    ),
    "escape": (doubled("ns.x = ns.x | replace('a', '&&&&a') | escape | string"), TOO_MUCH),
    "a block that is set": (
        MANY + "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}" + SHOWN,
        TOO_MUCH,
    ),
    "text in loops": (
        "{% set y %}{% for i in range(99999) %}" + "x" * 5000 + "{% endfor %}{% endset %}{{ y }}",
        TOO_MUCH,
    ),
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% else %}xxxx{% endif %}{% endmacro %}"
        "{{ f(60) }}",
        f"more than {STEPS_MAX} steps",
    ),
    "a filter over a block": (
        "{% filter replace('a', 'aaaaaaaaaaaaaaaa') | replace('a', 'aaaaaaaaaaaaaaaa') %}"
        + "a" * 100_000
        + "{% endfilter %}",
        TOO_MUCH,
    ),
    # Lists within lists: little in memory, and endless for whoever reads all of it.
    "lists": (doubled("ns.l = ns.l + ns.l"), f"more than {VALUE_CHARS_MAX} characters"),
    "nested lists": (doubled(LISTS), TOO_MUCH),
    "nested lists as JSON": (doubled(LISTS, "{{ ns.l | tojson }}"), TOO_MUCH),
    "nested lists as text": (doubled(LISTS, "{{ ns.l | string }}"), TOO_MUCH),
    "nested lists compared": (doubled(LISTS, "{{ ns.l == ns.l[0] }}"), TOO_MUCH),
    "nested lists sought": (doubled(LISTS, "{{ ns.l in [ns.l] }}"), TOO_MUCH),
    "nested lists sorted": (doubled(LISTS, "{{ ns.l | sort }}"), TOO_MUCH),
    "nested tuples as a key": (doubled(TUPLES, "{{ {ns.t: 1} }}"), TOO_MUCH),
    "nested tuples looked up": (doubled(TUPLES, "{{ {'a': 1}[ns.t] }}"), TOO_MUCH),
    "nested tuples got": (doubled(TUPLES, "{{ {'a': 1}.get(ns.t) }}"), TOO_MUCH),
    "nested tuples unique": (doubled(TUPLES, "{{ ns.t | unique | list }}"), TOO_MUCH),
    "nested maps": (doubled("ns.d = dict(a=ns.d, b=ns.d)", "{{ ns.d }}"), TOO_MUCH),
    "nested namespaces": (doubled("ns.x = namespace(a=ns.x, b=ns.x)"), "Namespace is no text"),
    "namespaces joined": (doubled("ns.x = namespace(a=ns.x)", "{{ ns.x ~ '' }}"), "is no text"),
    # Widths, depths and counts.
    "ljust": ("{{ 'x'.ljust(1000000000) }}", "ljust would make too much"),
    "rjust": ("{{ 'x'.rjust(1000000000) }}", "rjust would make too much"),
    "zfill": ("{{ 'x'.zfill(1000000000) }}", "zfill would make too much"),
    "center": ("{{ 'x'.center(1000000000) }}", "center would make too much"),
    "the filter center": ("{{ 'x' | center(1000000000) }}", "too large for center"),
    "indent": ("{{ 'x' | indent(1000000000) }}", "too large for indent"),
    "indent of many lines": ("{{ ('x\n' * 100000) | indent(60000) }}", "indent would make"),
    "indent by a text": ("{{ ('x\n' * 100000) | indent('y' * 100000) }}", "indent would make"),
    "indented JSON": ("{{ [1, 2] | tojson(indent=1000000000) }}", "too large for tojson"),
    "JSON indented by a text": ("{{ [1] | tojson(indent='x' * 1000000) }}", ""),
    "expandtabs": ("{{ '\t'.expandtabs(1000000000) }}", "'expandtabs'"),
    "translate": ("{{ 'x'.translate({120: 'y' * 1000000}) }}", "'translate'"),
    "bytes": ("{{ 'x'.encode() * 1000000000 }}", "'encode'"),
    "bytes of a number": ("{{ (1).to_bytes(1000000000, 'little') }}", "'to_bytes'"),
    "batch": ("{{ [1] | batch(1000000000, 'x') | list }}", "batch"),
    "slice": ("{{ [1] | slice(1000000000) | list }}", "slice"),
    "a power": ("{{ 7 ** 100000000 }}", "a power too large"),
    "squares of squares": (doubled("ns.x = (ns.x | length + 9) * (ns.x | length + 9)"), ""),
    "round": ("{{ 1.5 | round(100000000, 'ceil') }}", "too large for round"),
    "strip by a long text": (LONG + "{{ s.strip('b' * 500000 ~ 'x') }}", "strip would make"),
    "trim by a long text": (LONG + "{{ s | trim('b' * 500000 ~ 'x') }}", "trim would make"),
    "a long text's list": (LONG + "{{ s | list | length }}", TOO_MUCH),
    "many slices": (LONG + "{% for i in range(999) %}{% set t = s[1:] %}{% endfor %}", TOO_MUCH),
    "many splits": (
        LONG + "{% for i in range(999) %}{% set t = s.split() %}{% endfor %}",
        TOO_MUCH,
    ),
    # Steps.
    "loops in loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        f"more than {STEPS_MAX} steps",
    ),
    "a loop that passes all over": (
        "{% for i in range(99999) if i > 99999 %}{% endfor %}" * 20,
        f"more than {STEPS_MAX} steps",
    ),
    "a range without end": ("{% for a in range(10 ** 9) %}{% endfor %}", "Range too big"),
    "a cycle": (
        "{% set c = cycler(*range(999)) %}{% for i in range(99999) %}{{ c.next() }}{% endfor %}",
        TOO_MUCH,
    ),
    "a macro without end": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    "a macro that keeps much": (
        LONG + "{% macro f() %}{% set t = s[1:] %}{{ f() }}{% endmacro %}{{ f() }}",
        TOO_MUCH,
    ),
    "a loop that calls itself": (
        "{% for a in [1] recursive %}{{ loop(range(99999)) }}{% endfor %}",
        "recursion",
    ),
    "callers": (
        "{% macro m() %}{% for i in range(9999) %}{{ caller() }}{% endfor %}{% endmacro %}"
        "{% call m() %}{% call m() %}" + "y" * 1000 + "{% endcall %}{% endcall %}",
        TOO_MUCH,
    ),
    "a block that shows itself": ("{% block a %}{{ self.a() }}{% endblock %}", "recursion"),
    "steps where errors are passed over": (
        "{% for i in range(999) %}{{ messages[namespace()] }}"
        "{% for j in range(99999) %}{% endfor %}{% endfor %}",
        f"more than {STEPS_MAX} steps",
    ),
    "what is kept for later": (
        "{{ range(99999) | map('string') | map('center', 60000) | list }}",
        TOO_MUCH,
    ),
    # What Python's own compiler gives up on.
    "sixty loops deep": ("{% for a in [1] %}" * 60 + "{% endfor %}" * 60, "cannot be read"),
    "brackets": ("{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}", "cannot be read"),
    "lists without end": ("{{ " + "[" * 300 + "]" * 300 + " }}", "cannot be read"),
    "a chain of sums": ("{{ 1" + " + 1" * 5000 + " }}", "cannot be read"),
    "a chain of filters": ("{{ 'x'" + " | upper" * 5000 + " }}", "cannot be read"),
    "nots": ("{{ " + "not " * 20_000 + "1 }}", "cannot be read"),
}
RENDER = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from node.engines.worker.chat import ChatTemplate
from wire.errors import ModelRefused

for line in sys.stdin:
    source, messages = json.loads(line)
    began_s = time.process_time()
    try:
        told = "made " + str(len(ChatTemplate(source, {}).prompt(messages, "")))
    except ModelRefused as error:
        told = "refused: " + str(error)
    print(json.dumps([told, time.process_time() - began_s]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, float]]:
    lines = "".join(json.dumps([source, SAID]) + "\n" for source, _ in HOSTILE.values())
    done = subprocess.run(
        [sys.executable, "-c", RENDER, str(MEMORY_BYTES)],
        check=True,
        input=lines,
        capture_output=True,
        text=True,
        timeout=110,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip(HOSTILE, map(tuple, found), strict=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_soon_and_in_little_memory(
    outcomes: dict[str, tuple[str, float]], name: str
) -> None:
    told, took_s = outcomes[name]
    assert told.startswith("refused: the chat template"), told
    assert HOSTILE[name][1] in told
    assert "MemoryError" not in told
    assert took_s < CPU_S


HONEST = """
{%- set ns = namespace(system='', last=0) -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}{%- set ns.system = ns.system ~ message.content | trim -%}
  {%- endif -%}
  {%- if loop.last -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{{- bos_token ~ (ns.system or 'none') -}}
{%- for message in messages[::-1] | selectattr('role', 'in', ['user', 'assistant']) -%}
  {{- '<|' + message['role'].upper() + '|>' + (message.content.split('</think>')[-1].strip()
      | replace('\\n', ' ')) -}}
  {%- if message.tool_calls is defined -%}{{ message.tool_calls | tojson(indent=2) }}{%- endif -%}
  {%- if not loop.last and messages[loop.index0].role != message.role -%}{{ ',' }}{%- endif -%}
{%- endfor -%}
{{- messages | map(attribute='role') | unique | sort | join('+') | indent(2) -}}
{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}
"""


def test_a_long_honest_conversation_is_far_from_every_bound() -> None:
    turn = [
        {"role": "user", "content": "word " * 40},
        {"role": "assistant", "content": "so\n" * 60},
    ]
    messages = json.dumps([{"role": "system", "content": "be kind "}, *turn * 250])
    template = ChatTemplate(HONEST, {"bos_token": "<s>"})
    made = template.prompt(messages, "")
    assert made.startswith("<s>be kind")
    assert made.endswith("assistant+system+user<|assistant|>")
    assert template.budget.steps_left > STEPS_MAX / 2
    assert template.budget.chars_left > CHARS_MAX / 2
    # What one render used is not taken from the next one.
    assert template.prompt(messages, "") == made
