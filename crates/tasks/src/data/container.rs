//! Workbooks and Parquet: compressed containers, which a library unpacks.
//!
//! These libraries trust what a file says of itself: the number of its rows, the size of a page, the extent of a sheet.
//! A damaged or hostile file makes them ask for any amount of memory, or panic. So the binary reads such a file in a
//! process of its own, the *worker*: it gets the file's bytes on stdin, gives the rows up before it reads the first
//! of them all rights to open files, connections and processes, and has limits on memory and time. A worker that dies
//! is a refusal.
//!
//! A program that has no worker (a test) reads in its own process.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::limits::{self, Budget};
use super::row::{Each, Row};
use super::{excel, parquet};
use crate::refusal::Refusal;

/// A compressed format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Excel,
    Parquet,
}

impl Container {
    /// The format that the file's first bytes show.
    pub(super) fn of(bytes: &[u8]) -> Option<Container> {
        match bytes {
            [b'P', b'A', b'R', b'1', ..] => Some(Container::Parquet),
            [b'P', b'K', ..] | [0xd0, 0xcf, 0x11, 0xe0, ..] => Some(Container::Excel),
            _ => None,
        }
    }
}

/// Starts the worker: a program that calls [`work`].
static WORKER: OnceLock<fn() -> Command> = OnceLock::new();

/// Sets the worker of this process.
pub fn set_worker(command: fn() -> Command) {
    // A second call comes with the same command.
    let _ = WORKER.set(command);
}

/// What the worker writes, one a line.
#[derive(Serialize, Deserialize)]
enum Message {
    Row(usize, Row),
    Refused { problem: String, hint: String },
    Done,
}

/// Gives the rows with their row numbers in the sheet or, for Parquet, their index counted from 1.
///
/// # Errors
/// What the readers refuse, and what `each` refuses; a worker that cannot be started, or that ends before the file
/// does.
pub(super) fn rows(container: Container, bytes: Vec<u8>, each: &mut Each) -> Result<(), Refusal> {
    match WORKER.get() {
        Some(command) => of_worker(command(), bytes, each),
        None => unpack(container, bytes.into(), each),
    }
}

/// Reads a container in this process. A panic of its library becomes a refusal.
fn unpack(container: Container, bytes: Bytes, each: &mut Each) -> Result<(), Refusal> {
    let read = || match container {
        Container::Excel => excel::rows(bytes, each),
        Container::Parquet => parquet::rows(bytes, each),
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        Err(Refusal::new(format!("it is damaged, and its reader failed: {words}"), SAVE_AGAIN))
    })
}

const SAVE_AGAIN: &str = "save it again, or as CSV or JSON lines";

/// Reads a container in the worker.
fn of_worker(mut command: Command, bytes: Vec<u8>, each: &mut Each) -> Result<(), Refusal> {
    let length = bytes.len() as u64;
    let failed = |error: io::Error| {
        Refusal::new(format!("the process that reads it failed: {error}"), "free memory and processes, then try again")
    };
    let mut worker =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed)?;
    let (mut input, output) = (worker.stdin.take().expect("piped"), worker.stdout.take().expect("piped"));
    // A worker that refuses does not read on, and what it refused is in its output.
    let writer = std::thread::spawn(move || drop(input.write_all(&bytes)));
    let read = messages(output, each);
    let _ = worker.kill();
    let status = worker.wait().map_err(failed)?;
    drop(writer.join());
    match read? {
        true => Ok(()),
        false => Err(ended(status, length)),
    }
}

/// Whether the worker came to the end of the file.
fn messages(output: impl Read, each: &mut Each) -> Result<bool, Refusal> {
    let mut lines = BufReader::with_capacity(1 << 16, output);
    let mut line = Vec::new();
    loop {
        line.clear();
        let Ok(1..) = lines.read_until(b'\n', &mut line) else { return Ok(false) };
        match serde_json::from_slice(&line) {
            Ok(Message::Row(place, row)) => each(place, row)?,
            Ok(Message::Refused { problem, hint }) => return Err(Refusal::new(problem, hint)),
            Ok(Message::Done) => return Ok(true),
            Err(_) => return Ok(false),
        }
    }
}

/// Why a worker ended early.
fn ended(status: ExitStatus, length: u64) -> Refusal {
    #[cfg(unix)]
    if std::os::unix::process::ExitStatusExt::signal(&status) == Some(rustix::process::Signal::XCPU.as_raw()) {
        let problem = format!("reading it takes more than {} s of processor time", limits::seconds(length));
        return Refusal::new(problem, "split it into several files");
    }
    let most = limits::memory(length) >> 20;
    let problem = format!("it is damaged, or reading it takes more than {most} MiB of memory ({status})");
    Refusal::new(problem, SAVE_AGAIN)
}

/// The worker: reads a workbook or Parquet from stdin, and writes its rows to stdout.
///
/// # Errors
/// A program that no longer reads the rows.
pub fn work() -> io::Result<()> {
    // A panic is told by its message.
    std::panic::set_hook(Box::new(|_| ()));
    let mut bytes = Vec::new();
    io::stdin().lock().take(limits::FILE_BYTES).read_to_end(&mut bytes)?;
    confine(bytes.len() as u64)?;
    let mut output = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut write = |message: &Message| -> io::Result<()> {
        serde_json::to_writer(&mut output, message)?;
        output.write_all(b"\n")?;
        // What comes last must be out even if the reader fails behind it.
        match message {
            Message::Row(..) => Ok(()),
            _ => output.flush(),
        }
    };
    let mut budget = Budget::new(bytes.len() as u64);
    let mut each = |place, row| {
        budget.take(&row)?;
        write(&Message::Row(place, row)).map_err(|error| Refusal::new(error.to_string(), ""))
    };
    let container = Container::of(&bytes);
    let read = container.map_or(Ok(()), |container| unpack(container, bytes.into(), &mut each));
    write(&match read {
        Ok(()) => Message::Done,
        Err(refusal) => Message::Refused { problem: refusal.problem_in_place(), hint: refusal.hint },
    })
}

/// Limits this process: its memory and processor time, and no new files, connections or processes.
#[cfg(unix)]
fn confine(file_bytes: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    for (resource, most) in [
        (Resource::As, limits::memory(file_bytes)),
        (Resource::Cpu, limits::seconds(file_bytes)),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, 0),
        (Resource::Nproc, 0),
    ] {
        // No limit may be raised.
        let Rlimit { current, maximum } = getrlimit(resource);
        let most = current.map_or(most, |current| current.min(most));
        let maximum = match resource {
            // The soft limit ends the process by a signal that names the cause.
            Resource::Cpu => Some(maximum.map_or(most + 1, |maximum| maximum.min(most + 1))),
            _ => Some(most),
        };
        setrlimit(resource, Rlimit { current: Some(most), maximum })?;
    }
    Ok(())
}

/// Other systems know no such limits: there, the worker only keeps a fault of the library away from this process.
#[cfg(not(unix))]
fn confine(_: u64) -> io::Result<()> {
    Ok(())
}
