use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{ChatTemplate, Message, helpers};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");

fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
    turns
        .iter()
        .map(|&(role, content)| Message { role: role.to_owned(), content: content.to_owned() })
        .collect()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::from_source(source, Some("<s>"), Some("</s>"), Path::new("chat.jinja")).unwrap()
}

fn rendered(source: &str) -> String {
    template(source).render(&messages(&[("user", "Hi"), ("assistant", "Hello")]), false).unwrap()
}

fn failed(source: &str) -> String {
    let error = template(source).render(&messages(&[("user", "a\nb")]), false).unwrap_err().to_string();
    assert!(error.starts_with("chat.jinja: ") && error.contains("; ") && !error.contains('\n'), "{error}");
    error
}

#[test]
fn the_demo_template_is_rendered() {
    let template = ChatTemplate::load(&Path::new(GOLDEN).join("demo-ledger")).unwrap().unwrap();
    let turns = messages(&[("system", "S"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2")]);
    assert_eq!(template.render(&turns, true).unwrap(), "<s>S\nQ1 Answer: A1</s>\nQ2 Answer:");
    assert_eq!(template.render(&turns, false).unwrap(), "<s>S\nQ1 Answer: A1</s>\nQ2");
    assert!(ChatTemplate::load(&Path::new(GOLDEN).join("gqa4-d64")).unwrap().is_none());
}

/// In the manner of instruction-tuned Llama models. The expected prompts here and for [`PYTHONIC`] are those
/// of Jinja 3.1.6, set up as Hugging Face does it.
const INSTRUCT: &str = r#"{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date is defined %}
    {%- if strftime_now is defined %}
        {%- set date = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = "" %}
    {%- set turns = messages %}
{%- endif %}
{{- "<|head|>system<|/head|>\n\n" }}
{%- if tools is not none %}
    {{- "Tools: " + tools | tojson(indent=2) }}
{%- endif %}
{{- "Date known: " ~ (date | length > 0) ~ "\n\n" + system + "<|end|>" }}
{%- set ns = namespace(users=0) %}
{%- for message in turns %}
    {%- if message.role not in ['user', 'assistant'] %}
        {{- raise_exception("Role " ~ message.role ~ " is unknown") }}
    {%- endif %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception("Roles must alternate") }}
    {%- endif %}
    {%- if message.role == 'user' %}{% set ns.users = ns.users + 1 %}{% endif %}
    {{- '<|head|>' + message['role'] + '<|/head|>\n\n' }}
    {%- if message.role == 'assistant' %}
        {% generation %}
        {{- message['content'] | trim + '<|end|>' }}
        {%- endgeneration -%}
    {%- else %}
        {{- message['content'] | trim + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\n\n' }}
{%- endif %}
{{- '' if ns.users else 'nobody' }}"#;

#[test]
fn an_instruct_template_is_rendered() {
    let template = template(INSTRUCT);
    let hello = [("user", "Hi\n"), ("assistant", " Hello! ")];
    let prompt = template.render(&messages(&hello), false).unwrap();
    let head = "<s><|head|>system<|/head|>\n\nDate known: True\n\n";
    let turns = "<|head|>user<|/head|>\n\nHi<|end|><|head|>assistant<|/head|>\n\nHello!<|end|>";
    assert_eq!(prompt, format!("{head}<|end|>{turns}"));
    let all = [&[("system", " Be brief. ")][..], &hello, &[("user", "Grüße 東京?")]].concat();
    let last = "<|head|>user<|/head|>\n\nGrüße 東京?<|end|><|head|>assistant<|/head|>\n\n";
    let prompt = template.render(&messages(&all), true).unwrap();
    assert_eq!(prompt, format!("{head}Be brief.<|end|>{turns}{last}"));
    for (role, reason) in [("tool", "Role tool is unknown"), ("assistant", "Roles must alternate")] {
        let error = template.render(&messages(&[(role, "")]), false).unwrap_err().to_string();
        let expected =
            format!("chat.jinja: the chat template refuses the messages: {reason}; change the messages");
        assert_eq!(error, expected);
    }
}

const PYTHONIC: &str = r#"{% for m in messages %}
  {% if loop.index0 == 1 %}{% continue %}{% endif %}
  {% if m.role == 'stop' %}
    {% break %}
  {% endif %}
[{{ m.role.upper() }}] {{ m.content.strip().split('|')[-1].lstrip() }}|{{ m.content.startswith(' ') }}|{{ m.get('tool_calls') is none }}
  {%+ if m.content.endswith(('!', '?')) %}loud{% endif +%}
{% for key, value in m.items() %}{{ key }}={{ value|length }}{{ ',' if not loop.last }}{% endfor %}

{% endfor %}
{# a comment {% generation %} stays a comment #}
{{ messages|tojson }}
{{ messages[0]|tojson(indent=2) }}
{{ [1, 1.5, true, none, "é\"\\\n<&'>", [], {}]|tojson(separators=(',', ':'), ensure_ascii=False) }}
{{ [[], {}, [1, {'a': [2]}]]|tojson(indent=4) }}
{{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ missing }}{{ missing is defined }} {{ none }} {{ true }}
{{ "a,b,c".split(',')|join('-') }} {{ 'x' * 3 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ "{} and {}".format('p', 'q') }} {{ messages[::-1][0].role }} {{ "ab" in "cabd" }} {{ 'A' if messages|length > 1 else 'B' }}"#;

const PYTHONIC_PROMPT: &str = r#"[USER] two!|True|True
  loud
role=4,content=11
[USER] "three" <é>|False|True
  
role=4,content=12
[{"role": "user", "content": " one | two!"}, {"role": "skipped", "content": "x"}, {"role": "user", "content": "\"three\" <é>\n"}, {"role": "stop", "content": ""}, {"role": "user", "content": "never"}]
{
  "role": "user",
  "content": " one | two!"
}
[1,1.5,true,null,"é\"\\\n<&'>",[],{}]
[
    [],
    {},
    [
        1,
        {
            "a": [
                2
            ]
        }
    ]
]
3 False None True
a-b-c xxx 3 3 p and q user True A"#;

#[test]
fn python_methods_and_whitespace_are_those_of_jinja() {
    let first = [("user", " one | two!"), ("skipped", "x"), ("user", "\"three\" <é>\n")];
    let turns = [&first[..], &[("stop", ""), ("user", "never")]].concat();
    assert_eq!(template(PYTHONIC).render(&messages(&turns), false).unwrap(), PYTHONIC_PROMPT);
}

#[test]
fn variables_are_those_of_hugging_face() {
    let names =
        ["tools", "documents", "custom_tools", "date_string", "bos_token", "pad_token", "strftime_now"];
    let defined = names.map(|name| format!("{{{{ {name} is defined }}}} ")).concat();
    assert_eq!(rendered(&defined), "True True False False True False True ");
    assert_eq!(rendered("{{ tools is none and documents is none }}{{ pad_token }}|{{ x }}"), "True|");
    assert_eq!(rendered("<&'\">{{ messages[1].content }}{{ '<' }}\n"), "<&'\">Hello<");
}

#[test]
fn time_is_now_in_utc() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seconds: u64 = rendered("{{ strftime_now('%s') }}").parse().unwrap();
    assert!((now..now + 60).contains(&seconds));
    let same = "{% set f = '%d|%m|%y|%Y|%H|%j|%b|%B|%a|%A|%%|%-d' %}{{ strftime_now(f) }}";
    let parts = rendered(same);
    let lengths: Vec<usize> = parts.split('|').map(str::len).collect();
    assert_eq!((&lengths[..7], lengths[8]), (&[2, 2, 2, 4, 2, 3, 3][..], 3), "{parts}");
    assert!(failed("{{ strftime_now('%') }}").contains("at line 1"));
}

#[test]
fn generation_tags_become_scopes() {
    let tags = "a\n  {% generation %}\nb {%- endgeneration -%} c {%+ generation\n%}d{%endgeneration%}";
    assert_eq!(rendered(tags), "a\nbc   d".replace("c   d", "c d"));
    for kept in ["", "{%", "{% generation", "{%%}", "{{ generation }}", "{% set generation = '{%' %}{% if"] {
        assert_eq!(helpers::without_generation_tags(kept), kept);
    }
}

#[test]
fn errors_name_the_line_and_a_remedy() {
    for (source, line) in
        [("a\n{% if %}", 2), ("{{ 1 +", 1), ("\n\n{% nothing %}", 3), ("{% for m in x %}", 1)]
    {
        let label = Path::new("chat.jinja");
        let error = ChatTemplate::from_source(source, None, None, label).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("chat.jinja: the chat template fails at line {line}: ")),
            "{error}"
        );
        assert!(error.contains("; correct the template") && !error.contains('\n'), "{error}");
    }
    assert!(failed("\n{{ messages[0].no.such }}").contains("fails at line 2: undefined value"));
    assert!(failed("{{ messages|nothing }}").contains("nothing"));
    assert!(failed("{{ raise_exception('a\n b') }}").contains("refuses the messages: a b; change"));
    let nested = "{% macro f() %}{{ raise_exception('no') }}{% endmacro %}{{ f() }}";
    assert!(failed(nested).contains("refuses the messages: no; change"));
    for bad in ["ensure_ascii=True", "indent=17", "indent=-1", "separators=','", "separators=('a',)", "x=1"] {
        assert!(failed(&format!("{{{{ messages|tojson({bad}) }}}}")).contains("at line 1"));
    }
    assert!(failed("{{ raise_exception|tojson }}").contains("tojson cannot write"));
}

#[test]
fn hostile_templates_are_stopped() {
    let nest = |loops: &str, body: &str| {
        format!(
            "{{% set n = namespace(a=[1], b=[1]) %}}{loops}{body}{}",
            "{% endfor %}".repeat(loops.matches('%').count() / 2)
        )
    };
    let thousand = "{% for i in range(1000) %}";
    let sixty = "{% for i in range(60) %}";
    for source in [
        nest(&thousand.repeat(3), ""),
        nest(&thousand.repeat(3), "{% set n.a = [n.a] %}"),
        nest(sixty, "{% set n.a = n.a ~ n.a %}"),
        "{{ 'a' * 1000000000 }}".to_owned(),
        "{{ messages[0].content|indent(1000000000, true) }}".to_owned(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{{ '{:>999999999}'.format('x') }}".to_owned(),
        nest(sixty, "{% set n.a = [n.a, n.a] %}") + "{{ n.a|tojson }}",
        nest(sixty, "{% set n.a = [n.a, n.a] %}") + "{{ n.a|tojson(indent=16) }}",
        nest(thousand, "{% set n.a = [n.a] %}") + "{{ n.a|tojson }}",
    ] {
        assert!(failed(&source).contains("the chat template "), "{source}");
    }
    let deep =
        nest(&thousand.repeat(2), "{% if i < 10 %}{% set n.a = [n.a] %}{% set n.b = [n.b] %}{% endif %}");
    let deep = deep.replace("range(1000) %}{% if", "range(11) %}{% if");
    assert_eq!(rendered(&(deep + "{{ n.a == n.b }}")), "True");
}

#[test]
fn what_takes_too_long_is_given_up() {
    let twice = "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}";
    let source =
        "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(27) %}TWICE{% endfor %}{{ n.a == n.b }}";
    let mut template = template(&source.replace("TWICE", twice));
    template.longest_rendering = Duration::from_millis(2);
    let error = template.render(&[], false).unwrap_err().to_string();
    assert!(error.contains("takes more than 2ms; correct the template"), "{error}");
}

#[test]
fn templates_are_found_in_folders() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let load = || {
        let template = ChatTemplate::load(folder.path()).map_err(|error| error.to_string())?;
        Ok::<_, String>(template.map(|template| template.render(&[], false).unwrap()))
    };
    assert_eq!(load().unwrap(), None);
    for config in ["{}", r#"{"chat_template": null, "bos_token": null}"#] {
        write("tokenizer_config.json", config);
        assert_eq!(load().unwrap(), None);
    }
    let tokens = r#""bos_token": {"content": "<s>", "special": true}, "eos_token": "</s>", "pad_token": null,
        "unk_token": "<unk>", "add_bos_token": true, "model_max_length": 1e30"#;
    let all = "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token }}{{ add_bos_token }}";
    write("tokenizer_config.json", &format!(r#"{{{tokens}, "chat_template": "{all}"}}"#));
    assert_eq!(load().unwrap().unwrap(), "<s></s><unk>");
    let list = r#"[{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]"#;
    write("tokenizer_config.json", &format!(r#"{{{tokens}, "chat_template": {list}}}"#));
    assert_eq!(load().unwrap().unwrap(), "yes");
    for (value, part) in
        [(&list.replace("default", "rag")[..], "\"default\""), ("[]", "\"default\""), ("7", "neither")]
    {
        write("tokenizer_config.json", &format!(r#"{{"chat_template": {value}}}"#));
        let error = load().unwrap_err();
        assert!(
            error.contains("tokenizer_config.json: chat_template is ") && error.contains(part),
            "{error}"
        );
    }
    write("tokenizer_config.json", &format!(r#"{{{tokens}, "chat_template": "no"}}"#));
    write("chat_template.jinja", &format!("own {all}\n"));
    assert_eq!(load().unwrap().unwrap(), "own <s></s><unk>");
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    assert_eq!(load().unwrap().unwrap(), "own ");
    std::fs::write(folder.path().join("chat_template.jinja"), b"\xff").unwrap();
    assert!(load().unwrap_err().contains("chat_template.jinja: invalid utf-8"));
    write("tokenizer_config.json", "[]");
    assert!(load().unwrap_err().contains("tokenizer_config.json: invalid type"));
}
