//! The background writer: one thread that commits checkpoints while training continues.
//!
//! At most one checkpoint is being written. Handing over a second one waits for the first, so memory holds at most two
//! copies and commits happen in order. The next call returns the error of a failed write.
//!
//! Read next: [`crate::checkpoint`], for the order in which a checkpoint is written.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::checkpoint::{self, Blob, Manifest};
use crate::disk::Disk;
use crate::error::StoreError;

/// A checkpoint on its way to the disk.
pub(crate) struct Job {
    pub manifest: Manifest,
    pub blobs: Vec<Blob>,
    /// Files and folders that the checkpoint's marks refer to; they are synced before the commit.
    pub sync_before: Vec<PathBuf>,
}

enum Message {
    Write(Box<Job>),
    Flush(mpsc::Sender<()>),
}

pub(crate) struct Writer {
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<StoreError>>>,
    checkpoints: PathBuf,
}

impl Writer {
    pub(crate) fn start(disk: Arc<dyn Disk>, checkpoints: PathBuf, keep: usize) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::sync_channel(0);
        let failure = Arc::new(Mutex::new(None));
        let work = Work { disk, checkpoints: checkpoints.clone(), keep, failure: failure.clone() };
        let thread = thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || work.run(&receiver))
            .map_err(|e| StoreError::io("start a thread for", &checkpoints, e))?;
        Ok(Writer { sender: Some(sender), thread: Some(thread), failure, checkpoints })
    }

    /// Hands a checkpoint over; returns once the writer has taken it.
    pub(crate) fn submit(&self, job: Job) -> Result<(), StoreError> {
        self.take_failure()?;
        self.send(Message::Write(Box::new(job)))?;
        self.take_failure()
    }

    /// Returns when everything handed over is committed or has failed.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        let (done, wait) = mpsc::channel();
        self.send(Message::Flush(done))?;
        wait.recv().map_err(|_| self.gone())?;
        self.take_failure()
    }

    fn send(&self, message: Message) -> Result<(), StoreError> {
        self.sender.as_ref().expect("the sender lives as long as the writer").send(message).map_err(|_| self.gone())
    }

    fn take_failure(&self) -> Result<(), StoreError> {
        self.failure.lock().expect("the failure's lock is never held in a panic").take().map_or(Ok(()), Err)
    }

    fn gone(&self) -> StoreError {
        StoreError::WriterGone { path: self.checkpoints.clone() }
    }
}

impl Drop for Writer {
    /// Finishes what was handed over. Nobody can receive an error any more; the older checkpoint is still there.
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    disk: Arc<dyn Disk>,
    checkpoints: PathBuf,
    keep: usize,
    failure: Arc<Mutex<Option<StoreError>>>,
}

impl Work {
    fn run(&self, receiver: &Receiver<Message>) {
        for message in receiver {
            match message {
                Message::Write(job) => {
                    if let Err(error) = self.commit(*job) {
                        *self.failure.lock().expect("the failure's lock is never held in a panic") = Some(error);
                    }
                }
                // The caller may have stopped waiting. Then nobody needs the answer.
                Message::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn commit(&self, job: Job) -> Result<(), StoreError> {
        for path in &job.sync_before {
            self.disk.sync(path).map_err(|e| StoreError::io("sync", path, e))?;
        }
        checkpoint::write(&*self.disk, &self.checkpoints, job.manifest, job.blobs)?;
        checkpoint::prune(&*self.disk, &self.checkpoints, self.keep)
    }
}
