//! Errors of a request, in the form of OpenAI's API.

use std::fmt::Display;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A request that is refused or failed, with the reason.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    retry_after_s: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Problem {
        Problem { status, kind, code: None, param: None, message: message.into(), retry_after_s: None }
    }

    /// A field with an invalid value. The message says what is valid.
    pub fn wrong(param: impl Into<String>, message: impl Into<String>) -> Problem {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        Problem { param: Some(param.into()), ..problem }
    }

    /// A body that is not a request.
    pub fn malformed(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A prompt that is longer than the context.
    pub fn too_long(tokens: impl Display, context: usize) -> Problem {
        let message = format!("the messages are {tokens} tokens long, and the context ends at {context}: shorten them");
        Problem { code: Some("context_length_exceeded"), ..Problem::wrong("messages", message) }
    }

    /// A body that is larger than the limit, in bytes.
    pub fn too_large(limit: usize) -> Problem {
        let message = format!("the body has more than {limit} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// A body that did not arrive in time.
    pub fn too_slow() -> Problem {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "the body did not come in time")
    }

    /// No key, or a wrong one.
    pub fn unauthorised() -> Problem {
        let message = "send a valid key in the header `Authorization: Bearer KEY`";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message);
        Problem { code: Some("invalid_api_key"), ..problem }
    }

    /// A request from a source that this server does not accept.
    pub fn forbidden(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "invalid_request_error", message)
    }

    /// There is nothing at this path.
    pub fn not_found(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// A model that this server does not have.
    pub fn no_model(name: &str, has: &str) -> Problem {
        let message = format!("this server has no model {name:?}: name {has:?}, or none");
        Problem { code: Some("model_not_found"), param: Some("model".into()), ..Problem::not_found(message) }
    }

    /// A method that the route does not support.
    pub fn wrong_method() -> Problem {
        let message = "this address is not for this method; see the manual of `ferule serve`";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    /// A request that was made already, or that contradicts the present state.
    pub fn conflict(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, "invalid_request_error", message)
    }

    /// Too many large bodies are in memory.
    pub fn too_many_large() -> Problem {
        let message = "too many large requests are being read; try again in a second";
        Problem { message: message.into(), ..Problem::busy() }
    }

    /// Too many requests are waiting.
    pub fn busy() -> Problem {
        let message = "too many requests wait; try again in a second";
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Problem { code: Some("rate_limit_exceeded"), retry_after_s: Some(1), ..problem }
    }

    /// Too many wrong tokens from one address.
    pub fn wait(seconds: u64) -> Problem {
        let message = format!("too many wrong tokens came from there; try again in {seconds} s");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Problem { code: Some("rate_limit_exceeded"), retry_after_s: Some(seconds), ..problem }
    }

    /// The server is stopping.
    pub fn gone() -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "the server is stopping")
    }

    /// The model's thread has ended, which is a bug of this program.
    pub fn stopped() -> Problem {
        let message = "the model has stopped; start the server again";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
    }

    /// A failure of the server itself.
    pub fn failed(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// The upstream failed.
    pub fn upstream(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_GATEWAY, "server_error", message)
    }

    /// The error as a JSON object, for a body or a stream.
    pub fn json(&self) -> serde_json::Value {
        json!({ "error": { "message": self.message, "type": self.kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
