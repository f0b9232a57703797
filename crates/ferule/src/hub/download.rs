//! Downloads one file into the cache. An interrupted download is kept and resumed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use ureq::http::Uri;

use super::cache::RepositoryCache;
use super::client::{Client, RemoteFile, check_status};
use super::digest::difference;
use crate::outcome::{failure, failure_because};
use crate::visible::{self, note};

/// The number of tries before a connection that keeps breaking is given up.
const TRIES: usize = 5;

/// The slowest download that is waited for: a minute, and a second for so many bytes.
const BYTES_PER_SECOND: u64 = 10 << 10;

/// Downloads `path` of a commit into the cache. Returns the number of bytes that came over the network.
///
/// Contents that are in the cache already are compared with their name, and fetched again if they are damaged.
///
/// # Errors
/// The hub refuses, the connection breaks [`TRIES`] times, the hub is slower than [`BYTES_PER_SECOND`], the disk is
/// full, or the contents have another size or another digest (if their name is one) than the hub announced.
pub fn download(
    client: &Client,
    repository: &RepositoryCache,
    url: &Uri,
    commit: &str,
    path: &str,
) -> anyhow::Result<u64> {
    let remote = client.describe(url)?;
    let blob = repository.blob(&remote.etag);
    let write_error = |file: &Path| format!("cannot write {}", file.display());
    fs::create_dir_all(blob.parent().expect("a blob lies in a folder")).with_context(|| write_error(&blob))?;
    let mut received = 0;
    if !is_complete(&blob, path, &remote)? {
        let partial = blob.with_file_name(format!("{}.incomplete", remote.etag));
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&partial)
            .with_context(|| write_error(&partial))?;
        let locked = file.try_lock();
        if locked.is_err() {
            let problem = format!("{} is being written by another process", partial.display());
            return Err(failure(problem, "wait for it to end, then run the command again"));
        }
        received = fill(client, url, path, &remote, &mut file)?;
        if let Some(found) = difference(&partial, &remote.etag)? {
            fs::remove_file(&partial)?;
            let problem = format!("{path}: the contents have {found} where the hub announced {}", remote.etag);
            return Err(failure(problem, "the download was damaged and removed: run the command again"));
        }
        file.sync_all().with_context(|| write_error(&partial))?;
        fs::rename(&partial, &blob).with_context(|| write_error(&blob))?;
    }
    repository
        .link(commit, path, &remote.etag)
        .with_context(|| write_error(&repository.snapshot(commit).join(path)))?;
    Ok(received)
}

/// Whether the cache has the contents. It is said if it has damaged ones.
fn is_complete(blob: &Path, path: &str, remote: &RemoteFile) -> anyhow::Result<bool> {
    let Ok(found) = fs::metadata(blob) else { return Ok(false) };
    let read_error = || format!("cannot read {}", blob.display());
    let whole = found.len() == remote.size_bytes && difference(blob, &remote.etag).with_context(read_error)?.is_none();
    if !whole {
        note!("{path}: the copy in the cache is damaged and is fetched again");
    }
    Ok(whole)
}

/// Appends the missing bytes. Returns the number of bytes received.
fn fill(client: &Client, url: &Uri, path: &str, remote: &RemoteFile, file: &mut File) -> anyhow::Result<u64> {
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(remote.size_bytes).with_style(style.expect("a valid template"));
    bar.set_message(visible::line(path, 60));
    let end = Instant::now() + Duration::from_secs(60 + remote.size_bytes / BYTES_PER_SECOND);
    let (mut received, mut tries, mut fruitless) = (0, 0, 0);
    let broken = loop {
        if file.metadata()?.len() > remote.size_bytes {
            file.set_len(0)?;
        }
        let before = received;
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let Err(error) = append(client, url, path, remote, file, left, &bar, &mut received)? else {
            bar.finish_and_clear();
            return Ok(received);
        };
        tries += 1;
        fruitless = if received > before { 0 } else { fruitless + 1 };
        // A hub that twice sends nothing will not send anything the third time.
        if tries == TRIES || fruitless == 2 || Instant::now() >= end {
            break error;
        }
    };
    bar.finish_and_clear();
    Err(failure_because(
        broken,
        format!("{path}: broke off {tries} times"),
        "run the command again to go on from there",
    ))
}

/// Asks once for the missing bytes. The outer error is final, the inner one may pass.
fn append(
    client: &Client,
    url: &Uri,
    path: &str,
    remote: &RemoteFile,
    file: &mut File,
    time: Duration,
    bar: &ProgressBar,
    received: &mut u64,
) -> anyhow::Result<anyhow::Result<()>> {
    let have = file.metadata()?.len();
    if have == remote.size_bytes {
        return Ok(Ok(()));
    }
    let mut response = match client.get(url, have, time) {
        Ok(response) => response,
        Err(error) => return Ok(Err(error)),
    };
    let status = response.status().as_u16();
    if status == 416 || (have > 0 && status != 206) {
        // The server starts from the beginning, or its file is shorter than what was downloaded before.
        file.set_len(0)?;
    }
    if status == 416 {
        return Ok(Err(anyhow::anyhow!("the server keeps starting over")));
    }
    check_status(&response, url, || path.to_string())?;
    let have = file.metadata()?.len();
    bar.set_position(have);
    let missing = remote.size_bytes - have;
    let mut body = response.body_mut().as_reader();
    let outcome = copy(&mut (&mut body).take(missing), file, bar, received)?;
    if let Err(error) = outcome {
        return Ok(Err(client.broken(&error)));
    }
    if file.metadata()?.len() < remote.size_bytes {
        return Ok(Err(anyhow::anyhow!("the connection ended early")));
    }
    // An end that is late is no fault: everything that was announced is there.
    if body.read(&mut [0]).is_ok_and(|more| more > 0) {
        file.set_len(0)?;
        let problem = format!("{path}: the hub sends more than the {} bytes that it announced", remote.size_bytes);
        return Err(failure(problem, "do not trust this hub, or whatever stands between"));
    }
    Ok(Ok(()))
}

/// Copies to the end. The outer error is that of the disk, the inner one that of the connection.
fn copy(from: &mut impl Read, to: &mut File, bar: &ProgressBar, received: &mut u64) -> anyhow::Result<io::Result<()>> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(Ok(())),
            Ok(count) => {
                to.write_all(&buffer[..count]).map_err(|error| match error.kind() {
                    io::ErrorKind::StorageFull => {
                        failure("the disk is full", "free space and run the command again to resume")
                    }
                    _ => anyhow::anyhow!("cannot write to the cache: {error}"),
                })?;
                *received += count as u64;
                bar.inc(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}
