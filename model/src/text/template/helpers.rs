//! What Hugging Face adds to Jinja, and the Python methods that templates call.

use std::fmt;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

type Result<T> = std::result::Result<T, Error>;

/// JSON nested more deeply than this is refused.
const DEEPEST_JSON: usize = 64;
const WIDEST_INDENT: usize = 16;

/// Adds the functions, filters and methods to an environment.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", to_json);
    environment.set_unknown_method_callback(python_method);
}

/// Marks the errors that a template raises on purpose.
#[derive(Debug)]
struct Refusal;

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("raised by the template")
    }
}

impl std::error::Error for Refusal {}

/// Whether a template raised this error on purpose.
pub(super) fn is_refusal(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<Refusal>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn raise_exception(message: &Value) -> Result<Value> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()).with_source(Refusal))
}

/// The time in UTC, formatted as C's `strftime` does.
fn strftime_now(state: &State, format: &str) -> Result<String> {
    let format = Kwargs::from_iter([("format", Value::from(format))]);
    minijinja_contrib::filters::datetimeformat(state, minijinja_contrib::globals::now(), format)
}

/// The methods of Python's strings, lists and dictionaries, except for widths in `str.format`: they are not
/// charged for before the text is made.
fn python_method(state: &mut State, value: &Value, method: &str, arguments: &[Value]) -> Result<Value> {
    let field_has_format = |field: &str| field.split('}').next().is_some_and(|name| name.contains(':'));
    if method == "format" && value.as_str().is_some_and(|text| text.split('{').skip(1).any(field_has_format))
    {
        let detail = "str.format with a format specification is not supported";
        return Err(Error::new(ErrorKind::InvalidOperation, detail));
    }
    unknown_method_callback(state, value, method, arguments)
}

/// Python's `json.dumps(value, ensure_ascii=False)` with its arguments `indent` and `separators`.
fn to_json(state: &State, value: &Value, arguments: Kwargs) -> Result<String> {
    let indent: Option<usize> = arguments.get("indent")?;
    let separators: Option<Vec<String>> = arguments.get("separators")?;
    let ensure_ascii: Option<bool> = arguments.get("ensure_ascii")?;
    arguments.assert_all_used()?;
    if ensure_ascii == Some(true) || indent.is_some_and(|indent| indent > WIDEST_INDENT) {
        let detail =
            format!("tojson takes ensure_ascii=False only, and an indent of at most {WIDEST_INDENT}");
        return Err(Error::new(ErrorKind::InvalidOperation, detail));
    }
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "separators takes two texts")),
        None => (if indent.is_some() { "," } else { ", " }, ": "),
    };
    let mut json = Json { state, indent, item, key, text: String::new() };
    json.write(value, 0)?;
    Ok(json.text)
}

struct Json<'a, 'state> {
    state: &'a State<'state, 'state>,
    indent: Option<usize>,
    item: &'a str,
    key: &'a str,
    text: String,
}

impl Json<'_, '_> {
    fn write(&mut self, value: &Value, depth: usize) -> Result<()> {
        if depth > DEEPEST_JSON {
            let detail = format!("tojson nests more than {DEEPEST_JSON} values");
            return Err(Error::new(ErrorKind::InvalidOperation, detail));
        }
        self.state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::None | ValueKind::Undefined => self.push("null"),
            ValueKind::Bool => self.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.push(&value.to_string()),
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                self.write_all(value, depth, ['[', ']'], |json, item| json.write(&item, depth + 1))
            }
            ValueKind::Map => self.write_all(value, depth, ['{', '}'], |json, key| {
                json.write_text(&key.to_string())?;
                json.push(json.key)?;
                json.write(&value.get_item(&key)?, depth + 1)
            }),
            kind => Err(Error::new(ErrorKind::InvalidOperation, format!("tojson cannot write a {kind}"))),
        }
    }

    /// A list's items or a map's keys, each written by `write`, between brackets.
    fn write_all(
        &mut self,
        value: &Value,
        depth: usize,
        [open, close]: [char; 2],
        write: impl Fn(&mut Self, Value) -> Result<()>,
    ) -> Result<()> {
        self.text.push(open);
        let mut empty = true;
        for item in value.try_iter()? {
            if !std::mem::take(&mut empty) {
                self.push(self.item)?;
            }
            self.break_line(depth + 1)?;
            write(self, item)?;
        }
        if !empty {
            self.break_line(depth)?;
        }
        self.text.push(close);
        Ok(())
    }

    fn write_text(&mut self, text: &str) -> Result<()> {
        let quoted = serde_json::Value::from(text).to_string();
        self.push(&quoted)
    }

    fn break_line(&mut self, depth: usize) -> Result<()> {
        match self.indent {
            Some(indent) => self.push(&format!("\n{}", " ".repeat(indent * depth))),
            None => Ok(()),
        }
    }

    /// Appends text, which costs a step per 64 bytes.
    fn push(&mut self, text: &str) -> Result<()> {
        self.state.consume_fuel(text.len().div_ceil(64) as u64)?;
        self.text.push_str(text);
        Ok(())
    }
}

/// Replaces Hugging Face's `{% generation %}` tags, which mark the assistant's text for training, by scopes
/// that do nothing. Line numbers and the trimming of whitespace stay as they are.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        result.push_str(before);
        result.push_str("{%");
        rest = tag;
        let Some((inside, after)) = tag.split_once("%}") else { continue };
        let name = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let scope = match name {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => continue,
        };
        result.push_str(&inside.replacen(name, scope, 1));
        result.push_str("%}");
        rest = after;
    }
    result.push_str(rest);
    result
}
