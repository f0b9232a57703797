//! Handles a chat completion, from the request to the answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use lm::generate::Sampling;
use serde_json::{Value, json};
use store::data_folder::exchanges::Exchange;
use tokio::sync::mpsc::{self, Sender, UnboundedReceiver};
use tokio_stream::wrappers::ReceiverStream;

use super::chat::{Asked, choice, logprobs, remarks, usage};
use super::engine::Engine;
use super::forward;
use super::job::{Answer, Event, Job, Piece};
use super::problem::Problem;
use super::server::{Caller, Server, Source, collect, frame, fresh_id};

/// A request that the engine is computing.
struct Underway {
    id: String,
    created: u64,
    began: Instant,
    caller: Option<String>,
    asked: Asked,
    sampling: Sampling,
    engine: Engine,
    prompt_tokens: usize,
    events: UnboundedReceiver<Event>,
    /// Whether a piece has come yet.
    begun: bool,
}

/// Answers a chat completion.
pub async fn complete(
    State(server): State<Arc<Server>>,
    Extension(Caller(caller)): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Problem> {
    let asked = Asked::read(&body)?;
    let Some(engine) = server.engine() else {
        let Source::Upstream(upstream) = &server.source else { return Err(Problem::gone()) };
        return forward::complete(upstream, server.clone(), caller, asked, body).await;
    };
    let began = Instant::now();
    let model = engine.model();
    let known = |name: &String| [&server.name, &model.name, &model.digest].contains(&name);
    if let Some(name) = asked.model.as_ref().filter(|name| !known(name)) {
        return Err(Problem::no_model(name, &server.name));
    }
    // The places are reserved first, so that a refused request costs nothing.
    let places = engine.reserve(asked.samples)?;
    let (of_prompt, messages) = (engine.clone(), asked.messages.clone());
    // Templates and tokenizers take time for long texts, so they run on a blocking thread.
    let turn = server.prompts.clone().acquire_owned().await.map_err(|_| Problem::gone())?;
    let make = move || {
        // The turn ends with the work, even if the client does not wait for it.
        let _turn = turn;
        of_prompt.prompt(&messages)
    };
    let prompt = tokio::task::spawn_blocking(make).await;
    let prompt = prompt.map_err(|_| Problem::failed("the messages could not be turned into tokens"))??;
    let room = model.context - prompt.len();
    let seed = match asked.seed {
        Some(seed) => seed,
        None => random_seed()?,
    };
    let sampling = asked.sampling(&model.sampling);
    let (send, events) = mpsc::unbounded_channel();
    let prompt_tokens = prompt.len();
    engine.submit(Job {
        prompt,
        samples: asked.samples,
        sampling: sampling.clone(),
        max_new_tokens: asked.max_tokens.unwrap_or(room).min(room).min(server.max_tokens),
        stops: asked.stops.clone(),
        seed,
        top_logprobs: asked.top_logprobs,
        stream: asked.stream,
        places,
        events: send,
    })?;
    server.metrics.accepted(prompt_tokens);
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let stream = asked.stream;
    let id = fresh_id()?;
    let underway =
        Underway { id, created, began, caller, asked, sampling, engine, prompt_tokens, events, begun: false };
    if stream { Ok(underway.stream(server)) } else { underway.at_once(&server).await }
}

fn random_seed() -> Result<u64, Problem> {
    getrandom::u64().map_err(|error| Problem::failed(format!("no random numbers: {error}")))
}

impl Underway {
    /// The next event from the engine; none if the engine has stopped.
    async fn next(&mut self, server: &Server) -> Option<Event> {
        let event = self.events.recv().await;
        if !std::mem::replace(&mut self.begun, true) {
            server.metrics.begun(self.began);
        }
        event
    }

    /// The whole answer in one response. If the client disconnects, this future is dropped, and with it the receiver,
    /// which ends the request.
    async fn at_once(mut self, server: &Server) -> Result<Response, Problem> {
        let mut answers: Vec<Answer> = Vec::new();
        while answers.len() < self.asked.samples {
            match self.next(server).await {
                Some(Event::Piece(_)) => {}
                Some(Event::Finished(answer)) => answers.push(*answer),
                Some(Event::Failed(why)) => return Err(Problem::failed(why)),
                None => return Err(Problem::gone()),
            }
        }
        answers.sort_by_key(|answer| answer.sample);
        self.keep(server, &answers[0]).await?;
        let model = self.engine.model();
        let tokens = answers.iter().map(|answer| answer.made).sum();
        server.metrics.finished(self.began, tokens);
        let choices: Vec<Value> = answers.iter().map(|answer| choice(model, answer, self.asked.top_logprobs)).collect();
        Ok(Json(json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": server.name,
            "choices": choices,
            "usage": usage(self.prompt_tokens, tokens),
            "ferule": remarks(model, &answers[0], &self.sampling),
        }))
        .into_response())
    }

    /// The answer as a stream of server-sent events.
    fn stream(self, server: Arc<Server>) -> Response {
        let (send, pieces) = mpsc::channel::<Result<Bytes, Infallible>>(64);
        tokio::spawn(self.pump(server, send));
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
        (headers, Body::from_stream(ReceiverStream::new(pieces))).into_response()
    }

    /// Sends pieces until the answer ends or the client disconnects.
    async fn pump(mut self, server: Arc<Server>, send: Sender<Result<Bytes, Infallible>>) {
        let (id, created, name) = (self.id.clone(), self.created, server.name.clone());
        let chunk = |choices: Value| {
            let object = "chat.completion.chunk";
            json!({ "id": id, "object": object, "created": created, "model": name, "choices": choices })
        };
        let part = |sample: usize, delta: Value, logprobs: Option<Value>, finish: Option<&str>| {
            chunk(json!([{ "index": sample, "delta": delta, "logprobs": logprobs, "finish_reason": finish }]))
        };
        for sample in 0..self.asked.samples {
            let opening = part(sample, json!({ "role": "assistant", "content": "" }), None, None);
            if send.send(Ok(frame(opening))).await.is_err() {
                return;
            }
        }
        let (mut open, mut tokens) = (self.asked.samples, 0);
        while open > 0 {
            let event = tokio::select! {
                event = self.next(&server) => event,
                // The client has disconnected. Dropping the receiver ends the request.
                () = send.closed() => return,
            };
            let out = match event {
                Some(Event::Piece(Piece { sample, text, tokens })) => {
                    let most = self.asked.top_logprobs.unwrap_or(0);
                    let of_tokens = (!tokens.is_empty()).then(|| logprobs(self.engine.model(), &tokens, most));
                    part(sample, json!({ "content": text }), of_tokens, None)
                }
                Some(Event::Finished(answer)) => {
                    open -= 1;
                    tokens += answer.made;
                    if answer.sample == 0
                        && let Err(problem) = self.keep(&server, &answer).await
                    {
                        let _ = send.send(Ok(frame(problem.json()))).await;
                        return;
                    }
                    let mut last = part(answer.sample, json!({}), None, Some(answer.finish));
                    last["ferule"] = remarks(self.engine.model(), &answer, &self.sampling);
                    last
                }
                Some(Event::Failed(why)) => {
                    let _ = send.send(Ok(frame(Problem::failed(why).json()))).await;
                    return;
                }
                None => {
                    let _ = send.send(Ok(frame(Problem::gone().json()))).await;
                    return;
                }
            };
            if send.send(Ok(frame(out))).await.is_err() {
                return;
            }
        }
        server.metrics.finished(self.began, tokens);
        if self.asked.include_usage {
            let mut last = chunk(json!([]));
            last["usage"] = usage(self.prompt_tokens, tokens);
            let _ = send.send(Ok(frame(last))).await;
        }
        let _ = send.send(Ok(frame("[DONE]"))).await;
    }

    /// Keeps the exchange, if the server collects and the client allows it.
    async fn keep(&self, server: &Server, answer: &Answer) -> Result<(), Problem> {
        if !self.asked.store {
            return Ok(());
        }
        let model = self.engine.model();
        let exchange = Exchange {
            id: self.id.clone(),
            api_key: self.caller.clone(),
            user: self.asked.user.clone(),
            model: model.digest.clone(),
            messages: Value::from(self.asked.messages.clone()).to_string(),
            completion: answer.text.clone(),
            finish: answer.finish.to_string(),
            latency_ms: self.began.elapsed().as_millis() as u64,
            confidence: Some(answer.confidence),
            abstain: model.abstains(answer.confidence, &self.sampling),
        };
        collect(server, exchange).await
    }
}
