//! A line of the input: what is to be answered, and how.

use crate::cli::{load::Loaded, options::SamplingArguments, prompt::no_template};
use a2ats_model::{Result, engine::Request, text::template::Message};
use serde::Deserialize;
use serde_json::Value;

/// One line, as JSON has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
struct Fields {
    id: Option<Value>,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    max_new_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "stop is neither a string nor a list of strings")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A line, and what is wrong with it.
pub(super) struct Line {
    /// What the output calls it: its `id`, or else its number.
    pub(super) id: Value,
    fields: Result<Fields, String>,
}

impl Line {
    /// Reads line `number` of the input, counted from 1.
    pub(super) fn parse(text: &str, number: usize) -> Self {
        let value: Result<Value, _> = serde_json::from_str(text);
        let stated =
            value.as_ref().ok().and_then(|value| value.get("id")).filter(|id| !id.is_null()).cloned();
        let fields = value.and_then(serde_json::from_value::<Fields>).map_err(|error| error.to_string());
        let fields = fields.and_then(|fields| match (&fields.prompt, &fields.messages, &fields.id) {
            (_, _, Some(id)) if !(id.is_string() || id.is_number() || id.is_null()) => {
                Err("id is neither a string nor a number".to_owned())
            }
            (Some(_), None, _) | (None, Some(_), _) => Ok(fields),
            _ => Err("give either prompt or messages".to_owned()),
        });
        Self { id: stated.unwrap_or_else(|| number.into()), fields }
    }

    /// Makes it a line that is wrong.
    pub(super) fn refuse(&mut self, problem: String) {
        self.fields = Err(problem);
    }

    /// The tokens of its prompt.
    pub(super) fn tokens(&self, loaded: &Loaded) -> Result<Vec<u32>, String> {
        let Fields { prompt, messages, .. } = self.fields.as_ref().map_err(Clone::clone)?;
        let tokens = match (prompt, messages) {
            (Some(prompt), _) => loaded.tokenizer.encode(prompt, true),
            (None, messages) => {
                loaded.template.as_ref().ok_or_else(|| no_template(loaded)).and_then(|template| {
                    let text = template.render(messages.as_deref().unwrap_or_default(), true)?;
                    loaded.tokenizer.encode(&text, false)
                })
            }
        };
        tokens.map_err(|error| error.to_string())
    }

    /// A request for it; what it does not say is as on the command line.
    pub(super) fn request(&self, prompt: Vec<u32>, options: &SamplingArguments) -> Request {
        let mut request = options.request(prompt);
        let Ok(fields) = &self.fields else { return request };
        let sampling = &mut request.sampling;
        sampling.temperature = fields.temperature.unwrap_or(sampling.temperature);
        sampling.top_p = fields.top_p.unwrap_or(sampling.top_p);
        sampling.top_k = fields.top_k.unwrap_or(sampling.top_k);
        sampling.min_p = fields.min_p.unwrap_or(sampling.min_p);
        sampling.repetition_penalty = fields.repetition_penalty.unwrap_or(sampling.repetition_penalty);
        sampling.seed = fields.seed.unwrap_or(sampling.seed);
        request.max_new_tokens = fields.max_new_tokens.unwrap_or(request.max_new_tokens);
        match &fields.stop {
            None => {}
            Some(OneOrMany::One(stop)) => request.stop = vec![stop.clone()],
            Some(OneOrMany::Many(stop)) => request.stop.clone_from(stop),
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (text, problem) in [
            ("{", "EOF"),
            ("[1]", "JSON object"),
            (r#"{"id": 1}"#, "either prompt or messages"),
            (r#"{"prompt": "a", "messages": []}"#, "either prompt or messages"),
            (r#"{"prompt": "a", "temprature": 1}"#, "temprature"),
            (r#"{"prompt": "a", "stop": 1}"#, "neither a string nor a list"),
            (r#"{"id": [], "prompt": "a"}"#, "id is neither"),
        ] {
            let error = Line::parse(text, 1).fields.err().unwrap_or_default();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_line_without_an_id_goes_by_its_number() {
        assert_eq!(Line::parse(r#"{"prompt": "a"}"#, 7).id, 7);
        assert_eq!(Line::parse(r#"{"id": null, "prompt": "a"}"#, 7).id, 7);
        assert_eq!(Line::parse(r#"{"id": "x", "promt": "a"}"#, 7).id, "x");
        assert_eq!(Line::parse("nonsense", 7).id, 7);
    }
}
