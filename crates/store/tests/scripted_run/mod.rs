//! A make-believe training run for the tests, and a disk that fails on demand.
//!
//! The "weights" are 4 KiB, and each step hashes them. So a step that is lost, done twice or done out of order changes
//! all later ones. Stage `warm` has three steps; stage `rl` has four, with rollouts. Each stage writes a notice when it
//! begins, and again when it is resumed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use serde_json::json;
use store::disk::{Disk, OutFile, RealDisk, Temporary};
use store::{
    Blob, Checkpoint, Label, LabelKind, ModelDigest, Notice, Rollout, Run, Runs, StageRow, StepMetrics, StoreError,
    Verdict, VerdictOutcome,
};

pub const RECIPE: &str = "seed = 7\n[[stages]]\nname = \"warm\"\n[[stages]]\nname = \"rl\"\n";
const STAGES: [(&str, u64); 2] = [("warm", 3), ("rl", 4)];

pub fn open(folder: &Path) -> Result<Run, StoreError> {
    open_on(folder, Arc::new(RealDisk))
}

pub fn open_on(folder: &Path, disk: Arc<dyn Disk>) -> Result<Run, StoreError> {
    Runs::open_on(folder, disk).create_or_resume("road", RECIPE)
}

/// Runs from the run's present step to its end; commits every second step and at the end of a stage.
pub fn run_all(run: &Run) -> Result<(), StoreError> {
    run_until(run, u64::MAX)
}

/// The same, but returns after `steps` steps.
pub fn run_until(run: &Run, steps: u64) -> Result<(), StoreError> {
    let (mut weights, from_stage, from_step) = match run.resumed() {
        Some(c) => (c.read("weights")?, c.stage_index(), c.step()),
        None => (vec![0; 4096], 0, 0),
    };
    let mut left = steps;
    for (index, (stage, n)) in (0..).zip(STAGES).skip(from_stage as usize) {
        if left == 0 {
            return Ok(());
        }
        run.ledger().record_notice(&Notice {
            kind: "left_out".into(),
            stage: Some(stage.into()),
            text: format!("{stage}: two texts are left out"),
            count: 2,
        })?;
        for step in if index == from_stage { from_step + 1 } else { 1 }..=n {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            take_step(run, stage, step, &mut weights)?;
            if step == n {
                finish_stage(run, index, stage, &weights)?;
            }
            if step % 2 == 0 || step == n {
                let blobs = vec![Blob::bytes("weights", weights.clone())];
                run.commit(Checkpoint {
                    stage_index: index,
                    stage: stage.into(),
                    step,
                    blobs,
                    state: json!({"at": step}),
                    ends_stage: step == n,
                })?;
                // Waiting makes the order of operations the same each time, so that every one of them can be made to fail.
                run.flush()?;
            }
        }
    }
    Ok(())
}

fn take_step(run: &Run, stage: &str, step: u64, weights: &mut [u8]) -> Result<(), StoreError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(weights).update(stage.as_bytes()).update(&step.to_le_bytes());
    if stage == "rl" {
        let value = Some(step as f64 / 8.0);
        let verdict = Verdict { rule: "half".into(), outcome: VerdictOutcome::Score, value, reason: String::new() };
        let row =
            Rollout { case_id: "case".into(), tokens: vec![1, 2], logprobs: vec![-0.5, -0.25], ..Rollout::default() };
        run.write_rollouts(stage, step, &[Rollout { reward: value, verdicts: vec![verdict], ..row }])?;
        run.ledger().meter_answers(stage, &["case"])?;
    } else {
        let label = Label { record_id: format!("r{step}"), stage: stage.into(), kind: LabelKind::Demonstration };
        run.ledger().meter_labels(&[label])?;
    }
    hasher.finalize_xof().fill(weights);
    let loss = f64::from(weights[0]) / 255.0;
    run.log_step(&StepMetrics::new(stage, step).with("loss", loss))
}

fn finish_stage(run: &Run, index: u64, stage: &str, weights: &[u8]) -> Result<(), StoreError> {
    let mut digest = ModelDigest::new();
    digest.tensor("weights", "U8", &[weights.len() as u64], weights)?;
    let digest = digest.finish()?;
    let before = run.ledger().stages()?.into_iter().last().and_then(|row| row.digest);
    run.ledger().record_lineage(&digest, stage, &before.iter().map(String::as_str).collect::<Vec<_>>())?;
    let metered =
        run.ledger().metered(&Vec::from_iter(STAGES.iter().take(index as usize + 1).map(|(stage, _)| *stage)))?;
    let export = run.begin_export(stage)?;
    let path = export.folder().join("weights.bin");
    fs::write(&path, weights).map_err(|e| StoreError::io("write", &path, e))?;
    export.finish()?;
    run.ledger().record_stage(&StageRow {
        index,
        stage: stage.into(),
        labels: metered.labels,
        answers_read: metered.answers_read,
        digest: Some(digest),
        ..StageRow::default()
    })
}

/// Everything about a finished run that must not depend on how often it was killed; files by their BLAKE3.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub stages: Vec<StageRow>,
    pub notices: Vec<Notice>,
    pub metrics: String,
    pub rollouts: BTreeMap<String, String>,
    pub models: BTreeMap<String, String>,
    pub checkpoints: BTreeSet<String>,
}

pub fn outcome(folder: &Path) -> Outcome {
    let run = folder.join("road");
    let files = |under: &str, file: &dyn Fn(&str) -> Vec<String>| {
        let mut all = BTreeMap::new();
        for (stage, _) in STAGES {
            for name in file(stage) {
                if let Ok(bytes) = fs::read(run.join(under).join(stage).join(&name)) {
                    all.insert(format!("{stage}/{name}"), hash(&bytes));
                }
            }
        }
        all
    };
    let listed = |stage: &str| {
        let entries = fs::read_dir(run.join("rollouts").join(stage)).into_iter().flatten();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    };
    let view = Runs::open(folder).view("road").unwrap();
    Outcome {
        stages: view.ledger().stages().unwrap(),
        notices: view.ledger().notices().unwrap(),
        metrics: fs::read_to_string(run.join("metrics.jsonl")).unwrap(),
        rollouts: files("rollouts", &listed),
        models: files("models", &|_| vec!["weights.bin".to_owned()]),
        checkpoints: fs::read_dir(run.join("checkpoints"))
            .unwrap()
            .map(|e| hash(&fs::read(e.unwrap().path().join("weights")).unwrap()))
            .collect(),
    }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// Operation number `.0` and all after it fail, as for a killed process.
    DeadFrom(u64),
    /// The disk has room for `.0` more bytes.
    FullAfter(u64),
}

/// A disk that fails in a chosen way.
pub struct FailingDisk {
    fate: Fate,
    operations: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl FailingDisk {
    pub fn new(fate: Fate) -> Arc<Self> {
        Arc::new(FailingDisk { fate, operations: Arc::default(), bytes: Arc::default() })
    }

    /// Operations asked for and bytes written so far.
    pub fn counted(&self) -> (u64, u64) {
        (self.operations.load(SeqCst), self.bytes.load(SeqCst))
    }

    fn step(&self) -> io::Result<()> {
        step(self.fate, &self.operations)
    }

    fn wrap<F: OutFile + ?Sized>(&self, inner: Box<F>) -> FailingFile<F> {
        let (fate, operations, bytes) = (self.fate, self.operations.clone(), self.bytes.clone());
        FailingFile { inner: Some(inner), fate, operations, bytes }
    }
}

fn step(fate: Fate, operations: &AtomicU64) -> io::Result<()> {
    let n = operations.fetch_add(1, SeqCst);
    if matches!(fate, Fate::DeadFrom(first) if n >= first) { Err(io::Error::other("killed")) } else { Ok(()) }
}

struct FailingFile<F: OutFile + ?Sized> {
    inner: Option<Box<F>>,
    fate: Fate,
    operations: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl<F: OutFile + ?Sized> FailingFile<F> {
    fn inner(&mut self) -> &mut F {
        self.inner.as_mut().expect("an open file")
    }
}

/// A killed process removes nothing: its temporary files stay where they are.
impl<F: OutFile + ?Sized> Drop for FailingFile<F> {
    fn drop(&mut self) {
        if step(self.fate, &AtomicU64::new(self.operations.load(SeqCst))).is_err() {
            std::mem::forget(self.inner.take());
        }
    }
}

impl<F: OutFile + ?Sized> Write for FailingFile<F> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        // A killed process may have written a part.
        if let Err(e) = step(self.fate, &self.operations) {
            let _ = self.inner().write(&piece[..piece.len() / 2]);
            return Err(e);
        }
        let mut n = piece.len();
        if let Fate::FullAfter(room) = self.fate {
            n = n.min((room - self.bytes.load(SeqCst).min(room)) as usize);
            if n == 0 && !piece.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let n = self.inner().write(&piece[..n])?;
        self.bytes.fetch_add(n as u64, SeqCst);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner().flush()
    }
}

impl<F: OutFile + ?Sized> OutFile for FailingFile<F> {
    fn sync(&mut self) -> io::Result<()> {
        step(self.fate, &self.operations)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        step(self.fate, &self.operations)?;
        self.inner().truncate(len)
    }
}

impl Temporary for FailingFile<dyn Temporary> {
    fn persist(mut self: Box<Self>, path: &Path) -> io::Result<()> {
        step(self.fate, &self.operations)?;
        self.inner.take().expect("an open file").persist(path)
    }
}

/// Syncing is left out: these tests check the order, and they would otherwise wait for the disk a thousand times.
impl Disk for FailingDisk {
    fn temporary(&self, folder: &Path) -> io::Result<Box<dyn Temporary>> {
        self.step()?;
        Ok(Box::new(self.wrap(RealDisk.temporary(folder)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OutFile>> {
        self.step()?;
        Ok(Box::new(self.wrap(RealDisk.create(path)?)))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn OutFile>> {
        self.step()?;
        Ok(Box::new(self.wrap(RealDisk.append(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.rename(from, to)
    }

    fn sync(&self, _: &Path) -> io::Result<()> {
        self.step()
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.create_dir_all(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove(path)
    }
}
