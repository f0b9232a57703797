//! Downloads one file into the cache. An interrupted download is kept and resumed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use super::cache::RepositoryCache;
use super::client::{Client, RemoteFile, check_status};
use crate::outcome::{failure, failure_because};

/// The number of tries before a connection that keeps breaking is given up.
const TRIES: usize = 5;

/// Downloads `path` of a commit into the cache. Returns the number of bytes that came over the network.
///
/// # Errors
/// The hub refuses, the connection breaks [`TRIES`] times, the disk is full, or the contents have another size or
/// another SHA-256 (if their name is one) than the hub announced.
pub fn download(
    client: &Client,
    repository: &RepositoryCache,
    url: &str,
    commit: &str,
    path: &str,
) -> anyhow::Result<u64> {
    let remote = client.describe(url)?;
    let blob = repository.blob(&remote.etag);
    let write_error = |file: &Path| format!("cannot write {}", file.display());
    std::fs::create_dir_all(blob.parent().expect("a blob lies in a folder")).with_context(|| write_error(&blob))?;
    let mut received = 0;
    if !is_complete(&blob, &remote) {
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
        verify(&partial, path, &remote)?;
        file.sync_all().with_context(|| write_error(&partial))?;
        std::fs::rename(&partial, &blob).with_context(|| write_error(&blob))?;
    }
    repository
        .link(commit, path, &remote.etag)
        .with_context(|| write_error(&repository.snapshot(commit).join(path)))?;
    Ok(received)
}

fn is_complete(blob: &Path, remote: &RemoteFile) -> bool {
    std::fs::metadata(blob).is_ok_and(|found| remote.size_bytes.is_none_or(|size| size == found.len()))
}

/// Appends the missing bytes. Returns the number of bytes received.
fn fill(client: &Client, url: &str, path: &str, remote: &RemoteFile, file: &mut File) -> anyhow::Result<u64> {
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(remote.size_bytes.unwrap_or(0)).with_style(style.expect("a valid template"));
    bar.set_message(path.to_string());
    let mut received = 0;
    let mut last_error = None;
    for _ in 0..TRIES {
        let mut have = file.metadata()?.len();
        if remote.size_bytes.is_some_and(|size| have > size) {
            file.set_len(0)?;
            have = 0;
        }
        if remote.size_bytes == Some(have) {
            bar.finish_and_clear();
            return Ok(received);
        }
        let mut response = match client.get(url, (have > 0).then_some(have)) {
            Ok(response) => response,
            Err(error) => {
                last_error = Some(error);
                continue;
            }
        };
        let continues = response.status().as_u16() == 206;
        if response.status().as_u16() == 416 || (have > 0 && !continues) {
            // The server starts from the beginning, or its file is shorter than what was downloaded before.
            file.set_len(0)?;
        }
        if response.status().as_u16() == 416 {
            continue;
        }
        check_status(&response, url, || path.to_string())?;
        bar.set_position(file.metadata()?.len());
        let outcome = copy(&mut response.body_mut().as_reader(), file, &bar, &mut received)?;
        match outcome {
            Ok(()) if remote.size_bytes.is_none_or(|size| file.metadata().is_ok_and(|found| found.len() == size)) => {
                bar.finish_and_clear();
                return Ok(received);
            }
            Ok(()) => last_error = Some(anyhow::anyhow!("the connection ended early")),
            Err(error) => last_error = Some(error.into()),
        }
    }
    bar.finish_and_clear();
    let error = last_error.unwrap_or_else(|| anyhow::anyhow!("the server keeps starting over"));
    Err(failure_because(error, format!("{path}: broke off {TRIES} times"), "run the command again to go on from there"))
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

/// Compares the contents with their name, if that is a SHA-256. Contents that differ are removed.
fn verify(partial: &Path, path: &str, remote: &RemoteFile) -> anyhow::Result<()> {
    if remote.etag.len() != 64 || !remote.etag.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(());
    }
    let mut hasher = Sha256::new();
    let mut file = File::open(partial)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    let found = crate::secrets::hex(&hasher.finalize());
    if found != remote.etag.to_ascii_lowercase() {
        std::fs::remove_file(partial)?;
        let problem = format!("{path}: the contents have SHA-256 {found} where the hub announced {}", remote.etag);
        return Err(failure(problem, "the download was damaged and removed: run the command again"));
    }
    Ok(())
}
