//! Stdout, which gets only data.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use serde::Serialize;

use crate::outcome::ReaderGone;
use crate::visible;

/// Buffered stdout that distinguishes a closed pipe from a failure.
pub struct Output {
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// Locks stdout for its own lifetime.
    pub fn stdout() -> Self {
        Self { out: BufWriter::new(io::stdout().lock()) }
    }

    /// Writes one JSON object as a line. Numbers of type f32 get the fewest digits that parse back to the same bits.
    /// Characters that could control a terminal are escaped.
    pub fn json_line(&mut self, row: &impl Serialize) -> anyhow::Result<()> {
        let line = serde_json::to_string(row)?;
        writeln!(self.out, "{}", visible::json(&line)).map_err(explain)
    }

    /// Writes text, with everything in it [visible](visible::text).
    pub fn text(&mut self, text: &str) -> anyhow::Result<()> {
        self.out.write_all(visible::text(text).as_bytes()).map_err(explain)
    }

    /// Flushes the buffer.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().map_err(explain)
    }
}

fn explain(error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => ReaderGone.into(),
        ErrorKind::StorageFull => crate::outcome::failure(
            format!("cannot write the output: {error}"),
            "free space on the disk and run the command again",
        ),
        _ => anyhow::anyhow!("cannot write the output: {error}"),
    }
}
