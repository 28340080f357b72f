"""Chat templates in the shape of published ones, shortened, and the forms in which a source can hold them."""

import json
from collections.abc import Callable, Mapping

CHATML_TURN = "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"

# A default system prompt, tools in the system turn, tool calls and tool answers, as Qwen2.5 has them.
QWEN25 = (
    """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'Be helpful.' }}
    {%- endif %}
    {{- "\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nBe helpful.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        """
    + CHATML_TURN
    + """
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {{- '\\n<tool_call>' + tool_call.function.name }}
            {{- tool_call.function.arguments | tojson }}
            {{- '</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\\n<tool_response>' + message.content + '</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
)

# Thinks by default, and looks for the last real question from the end, as Qwen3 does.
QWEN3 = """\
{%- set ns = namespace(last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- if message.role == "user" and not message.content.startswith('<tool_response>') %}
        {%- set ns.last_query = messages|length - 1 - loop.index0 %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" and loop.index0 < ns.last_query %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

# The same switch, off unless it is turned on, in the three ways that templates ask.
OFF_BY_DEFAULT = {
    "defined": QWEN3.replace(
        "enable_thinking is defined and enable_thinking is false",
        "not (enable_thinking is defined and enable_thinking)",
    ),
    "default filter": QWEN3.replace(
        "enable_thinking is defined and enable_thinking is false", "not enable_thinking | default(false)"
    ),
    "set": "{%- if enable_thinking is not defined %}{%- set enable_thinking = false %}{%- endif %}\n" + QWEN3,
}

# Opens every answer with thoughts, as Qwen3-Thinking-2507 and R1's distillates do.
ALWAYS_THINKS = (
    "{%- for message in messages %}"
    + CHATML_TURN
    + "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
)

# Begins with a value, trims contents, takes parts by index and raises on a wrong role, as Llama 3.1 does.
LLAMA31 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|im_start|>system\\nToday Date: " + date_string + "\\n\\n" + system_message + "<|im_end|>" }}
{%- for message in messages %}
    {%- if message.role not in ['user', 'assistant', 'tool', 'ipython'] %}
        {{- raise_exception("unknown role") }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\\n\\n'+ message['content'] | trim + '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n\\n' }}
{%- endif %}
"""

# A training template marks what the assistant says; this one takes contents in parts.
TRAINING = """
{% for message in messages %}
<|im_start|>{{ message.role }}
{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}
{% elif message.content is string %}{{ message.content }}<|im_end|>
{% else %}{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}
"""

ALL = {"qwen2.5": QWEN25, "qwen3": QWEN3, "thinking": ALWAYS_THINKS, "llama3.1": LLAMA31, "training": TRAINING}


def in_tokenizer_config(template: str) -> dict[str, bytes]:
    """As 4.x saves it."""
    return {"tokenizer_config.json": _json({"model_max_length": 4096, "chat_template": template})}


def in_list(template: str) -> dict[str, bytes]:
    """Several by name; another key is called `template` too."""
    named = [{"name": "default", "template": template}, {"name": "tool_use", "template": template + "!"}]
    return {"tokenizer_config.json": _json({"chat_template": named, "other": {"template": "left alone"}})}


def in_odd_json(template: str) -> dict[str, bytes]:
    """Valid JSON that no serializer here would write the same way again."""
    written = json.dumps(template).replace("/", "\\/").replace("k", "\\u006b")
    text = '{"name" : "\\u00e9 é",\r\n\t"chat_template":' + written + "  }"
    return {"tokenizer_config.json": text.encode()}


def in_jinja_files(template: str) -> dict[str, bytes]:
    """As 5.x saves it."""
    return {
        "chat_template.jinja": template.encode(),
        "additional_chat_templates/rag.jinja": (template + "é").encode(),
        "tokenizer_config.json": _json({"model_max_length": 4096}),
    }


def in_processor_file(template: str) -> dict[str, bytes]:
    return {"chat_template.json": _json({"chat_template": template})}


FORMS: Mapping[str, Callable[[str], dict[str, bytes]]] = {
    "tokenizer_config": in_tokenizer_config,
    "list": in_list,
    "odd json": in_odd_json,
    "jinja": in_jinja_files,
    "processor": in_processor_file,
}


def _json(value: object) -> bytes:
    return json.dumps(value, indent=4, ensure_ascii=False).encode()
