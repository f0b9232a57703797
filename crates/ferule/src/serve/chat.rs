//! `/v1/chat/completions`: parses requests and writes answers.
//!
//! A field that the server cannot honour is refused. Nothing that a client asks for is ignored silently.

use lm::generate::{Sampling, Token};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::job::{Answer, Shared};
use super::problem::Problem;

/// The largest number of stop strings in a request, as in OpenAI's API.
const STOPS: usize = 4;
/// The largest number of completions in a request.
const MOST_SAMPLES: u64 = 64;

/// A request's body.
#[derive(Debug, Deserialize)]
struct Body {
    messages: Vec<Value>,
    model: Option<String>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    seed: Option<i64>,
    stop: Option<Value>,
    n: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    logprobs: Option<bool>,
    top_logprobs: Option<u64>,
    user: Option<String>,
    store: Option<bool>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// A parsed request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The messages, each with `role` and a text as `content`.
    pub messages: Vec<Value>,
    /// The model that it names.
    pub model: Option<String>,
    /// The largest number of tokens of a completion, if given.
    pub max_tokens: Option<usize>,
    /// Divides the logits, if given.
    pub temperature: Option<f32>,
    /// The probability mass that is kept, if given.
    pub top_p: Option<f32>,
    /// The seed, if given.
    pub seed: Option<u64>,
    /// Stop strings. A completion ends before the first of them.
    pub stops: Vec<String>,
    /// The number of completions.
    pub samples: usize,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a stream ends with the token counts.
    pub include_usage: bool,
    /// The number of most likely tokens to report at each position; none if no log-probabilities are requested.
    pub top_logprobs: Option<usize>,
    /// The user's name, as the client gives it.
    pub user: Option<String>,
    /// Whether the exchange may be kept.
    pub store: bool,
}

/// Whether a field can be ignored: it does not affect the answer, or it has a value that changes nothing.
fn harmless(name: &str, value: &Value) -> bool {
    match name {
        "metadata" | "service_tier" | "prompt_cache_key" | "safety_identifier" => true,
        "frequency_penalty" | "presence_penalty" => value.as_f64() == Some(0.0),
        "logit_bias" => value.as_object().is_some_and(Map::is_empty),
        "response_format" => value["type"] == "text",
        "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
        "tool_choice" | "function_call" => value == "none",
        "parallel_tool_calls" => true,
        "modalities" => *value == json!(["text"]),
        _ => false,
    }
}

impl Asked {
    /// Parses a body.
    ///
    /// # Errors
    /// A body that is not JSON, has a wrong type, or asks for something that this server does not support.
    pub fn read(body: &[u8]) -> Result<Asked, Problem> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| Problem::malformed(format!("the body cannot be read: {error}")))?;
        for (name, value) in &body.rest {
            if !value.is_null() && !harmless(name, value) {
                return Err(Problem::wrong(name, format!("`{name}` is not supported with this value: leave it out")));
            }
        }
        let range = |name: &str, value: Option<f64>, low: f64, high: f64| match value {
            Some(value) if !(low..=high).contains(&value) => {
                Err(Problem::wrong(name, format!("`{name}` is from {low} to {high}, not {value}")))
            }
            value => Ok(value.map(|value| value as f32)),
        };
        let temperature = range("temperature", body.temperature, 0.0, 2.0)?;
        // What is above 0 stays above 0.
        let top_p = range("top_p", body.top_p, 0.0, 1.0)?.map(|top_p| top_p.max(f32::MIN_POSITIVE));
        if body.top_p == Some(0.0) {
            return Err(Problem::wrong("top_p", "`top_p` is above 0; for the most likely token write temperature 0"));
        }
        let samples = body.n.unwrap_or(1);
        if !(1..=MOST_SAMPLES).contains(&samples) {
            return Err(Problem::wrong("n", format!("`n` is from 1 to {MOST_SAMPLES}")));
        }
        for (name, most) in [("max_tokens", body.max_tokens), ("max_completion_tokens", body.max_completion_tokens)] {
            if most == Some(0) {
                return Err(Problem::wrong(name, format!("`{name}` is 1 or more")));
            }
        }
        let max_tokens = body.max_completion_tokens.or(body.max_tokens);
        let (stream, logprobs) = (body.stream.unwrap_or(false), body.logprobs.unwrap_or(false));
        if body.top_logprobs.is_some() && !logprobs {
            return Err(Problem::wrong("top_logprobs", "`top_logprobs` needs `logprobs`: true"));
        }
        if body.top_logprobs.unwrap_or(0) > 20 {
            return Err(Problem::wrong("top_logprobs", "`top_logprobs` is from 0 to 20"));
        }
        Ok(Asked {
            messages: messages(&body.messages)?,
            model: body.model,
            max_tokens: max_tokens.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
            temperature,
            top_p,
            seed: body.seed.map(|seed| seed as u64),
            stops: stops(body.stop)?,
            samples: samples as usize,
            stream,
            include_usage: body.stream_options.unwrap_or_default().include_usage.unwrap_or(false),
            top_logprobs: logprobs.then(|| body.top_logprobs.unwrap_or(0) as usize),
            user: body.user.filter(|user| !user.is_empty()),
            store: body.store.unwrap_or(true),
        })
    }

    /// How tokens are sampled. With a temperature, the request gets the whole distribution at that temperature, or the
    /// part that `top_p` keeps. Without one, it gets the model's default sampling, `by_itself`.
    pub fn sampling(&self, by_itself: &Sampling) -> Sampling {
        let mut sampling = match self.temperature {
            Some(temperature) => Sampling { temperature, ..Sampling::default() },
            None => by_itself.clone(),
        };
        sampling.top_p = self.top_p.unwrap_or(sampling.top_p);
        sampling
    }
}

/// Checks that the contents of messages are plain texts.
fn messages(list: &[Value]) -> Result<Vec<Value>, Problem> {
    if list.is_empty() {
        return Err(Problem::wrong("messages", "there is no message"));
    }
    list.iter()
        .enumerate()
        .map(|(place, message)| {
            let wrong = |what: &str| Problem::wrong(format!("messages[{place}]"), format!("messages[{place}] {what}"));
            let role = message["role"].as_str().ok_or_else(|| wrong("has no role"))?;
            if !["system", "developer", "user", "assistant"].contains(&role) {
                return Err(wrong("has a role that is not system, developer, user or assistant"));
            }
            let content = match &message["content"] {
                Value::String(text) => text.clone(),
                Value::Array(parts) => parts
                    .iter()
                    .map(|part| part["text"].as_str().filter(|_| part["type"] == "text"))
                    .collect::<Option<String>>()
                    .ok_or_else(|| wrong("has a part that is no text"))?,
                _ => return Err(wrong("has no text as content")),
            };
            let role = if role == "developer" { "system" } else { role };
            let mut read = json!({ "role": role, "content": content });
            for (field, value) in message.as_object().into_iter().flatten() {
                match field.as_str() {
                    "role" | "content" => {}
                    // Some templates print the name.
                    "name" if value.is_string() => read["name"] = value.clone(),
                    _ if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => {}
                    _ => return Err(wrong(&format!("has `{field}`, which is not supported: leave it out"))),
                }
            }
            Ok(read)
        })
        .collect()
}

fn stops(value: Option<Value>) -> Result<Vec<String>, Problem> {
    let wrong = || Problem::wrong("stop", format!("`stop` is a text or a list of up to {STOPS} texts"));
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) if list.len() <= STOPS => {
            list.into_iter().map(|stop| stop.as_str().map(String::from)).collect::<Option<_>>().ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    if list.iter().any(String::is_empty) { Err(wrong()) } else { Ok(list) }
}

/// The token counts of a prompt and its completions.
pub fn usage(prompt: usize, completions: usize) -> Value {
    json!({ "prompt_tokens": prompt, "completion_tokens": completions, "total_tokens": prompt + completions })
}

/// Ferule's additions to the API's answer: the model's confidence, and whether a person should look.
pub fn remarks(model: &Shared, answer: &Answer, sampling: &Sampling) -> Value {
    let abstain = model.abstains(answer.confidence, sampling);
    json!({ "confidence": answer.confidence, "abstain": abstain, "model": model.digest })
}

/// The log-probabilities of tokens, with the `most` likeliest tokens at each position.
pub fn logprobs(model: &Shared, tokens: &[Token], most: usize) -> Value {
    let entry = |id: u32, logprob: f32| {
        let bytes = model.tokenizer.token_bytes(id).unwrap_or_default();
        // JSON has no infinity. OpenAI's API writes this value for a token of probability 0.
        json!({ "token": String::from_utf8_lossy(bytes), "logprob": logprob.max(-9999.0), "bytes": bytes })
    };
    let content = tokens.iter().map(|token| {
        let mut of_token = entry(token.id, token.logprob);
        of_token["top_logprobs"] = token.top.iter().take(most).map(|&(id, logprob)| entry(id, logprob)).collect();
        of_token
    });
    json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
}

/// A choice of an answer that is not streamed.
pub fn choice(model: &Shared, answer: &Answer, top_logprobs: Option<usize>) -> Value {
    json!({
        "index": answer.sample,
        "message": { "role": "assistant", "content": answer.text, "refusal": null },
        "logprobs": top_logprobs.map(|most| logprobs(model, &answer.tokens, most)),
        "finish_reason": answer.finish,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        Asked::read(body.as_bytes()).expect_err(body).json()["error"]["message"].as_str().unwrap().to_string()
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let with = |rest: &str| format!(r#"{{"messages":[{{"role":"user","content":"q"}}],{rest}}}"#);
        for (rest, said) in [
            (r#""tools":[{}]"#, "`tools` is not supported"),
            (r#""presence_penalty":1"#, "`presence_penalty` is not"),
            (r#""response_format":{"type":"json_object"}"#, "`response_format` is not"),
            (r#""tempreature":0"#, "`tempreature` is not"),
            (r#""temperature":-1"#, "from 0 to 2"),
            (r#""temperature":1e999"#, "cannot be read"),
            (r#""n":0"#, "from 1 to 64"),
            (r#""stop":["a","b","c","d","e"]"#, "up to 4"),
            (r#""stop":"""#, "up to 4"),
            (r#""max_tokens":0"#, "1 or more"),
        ] {
            assert!(refused(&with(rest)).contains(said), "{rest}: {}", refused(&with(rest)));
        }
        for (body, said) in [
            (r#"{"messages":[]}"#, "no message"),
            (r#"{"messages":[{"role":"user"}]}"#, "no text"),
            (r#"{"messages":[{"role":"tool","content":"x"}]}"#, "messages[0] has a role"),
            (r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#, "no text"),
            (r#"{"messages":[{"role":"assistant","content":"x","tool_calls":[{}]}]}"#, "has `tool_calls`"),
            ("[", "cannot be read"),
            ("{}", "missing field"),
        ] {
            assert!(refused(body).contains(said), "{body}: {}", refused(body));
        }
    }

    #[test]
    fn a_request_is_read_as_it_is_meant() {
        let body = r#"{"model":"m","messages":[{"role":"developer","content":"s"},{"role":"user","content":[{"type":"text","text":"a"},
            {"type":"text","text":"b"}],"name":"x","refusal":null}],"stop":"END","seed":-1,"max_completion_tokens":5,"frequency_penalty":0,"store":false,
            "user":"anna","stream":true,"stream_options":{"include_usage":true},"tools":null}"#;
        let asked = Asked::read(body.as_bytes()).unwrap();
        assert_eq!(
            asked.messages,
            [json!({"role":"system","content":"s"}), json!({"role":"user","content":"ab","name":"x"})]
        );
        assert_eq!((asked.stops.as_slice(), asked.seed), (&["END".to_string()][..], Some(u64::MAX)));
        assert_eq!(asked.max_tokens, Some(5));
        assert!(asked.stream && asked.include_usage && !asked.store);
        assert_eq!(asked.user.as_deref(), Some("anna"));
        let by_itself = Sampling { temperature: 0.5, top_k: 3, repetition_penalty: 1.1, ..Sampling::default() };
        assert_eq!(asked.sampling(&by_itself), by_itself);
        let greedy = Asked { temperature: Some(0.0), ..asked };
        assert_eq!(greedy.sampling(&by_itself), Sampling::greedy(), "what is greedy is greedy alone");
    }
}
