//! `metrics.jsonl`: one JSON object per step, for people, plots and `tail -f`.
//!
//! ```text
//! {"stage":"grpo","step":120,"reward":0.71,"loss":0.013,"entropy":0.42,"step_seconds":1.93}
//! ```
//!
//! Two runs of one recipe agree in every column but `step_seconds`. A figure that does not exist is `null`, never 0:
//! for example the loss of a step without an update. A number that is not finite is `null` too, because JSON cannot
//! write it.
//!
//! This module never averages, smooths or drops a step.
//!
//! Read next: [`crate::run`], which cuts the file back to the commit point.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::disk::{Disk, OutFile};
use crate::error::StoreError;

/// The numbers of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepMetrics {
    /// The stage.
    pub stage: String,
    /// The step, counted from 1 by the stage.
    pub step: u64,
    /// Named figures in the order in which they are written; none if the step does not have the figure. Names end in
    /// their unit: `train_tokens`, `step_seconds`.
    pub values: Vec<(String, Option<f64>)>,
}

impl StepMetrics {
    /// Metrics of a step, without numbers yet.
    pub fn new(stage: impl Into<String>, step: u64) -> Self {
        StepMetrics { stage: stage.into(), step, values: Vec::new() }
    }

    /// Adds one figure.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Option<f64>>) -> Self {
        self.values.push((name.into(), value.into()));
        self
    }

    /// The figure with that name; none if it is `null` or was not logged.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(n, _)| n == name).and_then(|&(_, v)| v)
    }

    fn to_line(&self) -> String {
        let mut object = Map::new();
        object.insert("stage".to_owned(), self.stage.clone().into());
        object.insert("step".to_owned(), self.step.into());
        for (name, value) in &self.values {
            assert!(name != "stage" && name != "step", "`{name}` is no name for a number of a step");
            object.insert(name.clone(), (*value).into());
        }
        format!("{}\n", Value::Object(object))
    }

    fn from_line(line: &str) -> Result<Self, String> {
        let object: Map<String, Value> = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let stage = object.get("stage").and_then(Value::as_str).ok_or("no `stage`")?;
        let step = object.get("step").and_then(Value::as_u64).ok_or("no `step`")?;
        let mut metrics = StepMetrics::new(stage, step);
        for (name, value) in object.iter().filter(|(name, _)| *name != "stage" && *name != "step") {
            let figure = value.as_f64();
            if figure.is_none() && !value.is_null() {
                return Err(format!("`{name}` is not a number"));
            }
            metrics.values.push((name.clone(), figure));
        }
        Ok(metrics)
    }
}

/// The open file, and the length of its complete lines.
pub(crate) struct MetricsFile {
    file: Box<dyn OutFile>,
    path: PathBuf,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl MetricsFile {
    /// Opens the file, made if absent, and cuts it to `bytes`.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, bytes: u64) -> Result<Self, StoreError> {
        let mut file = disk.append(path).map_err(|e| StoreError::io("open", path, e))?;
        file.truncate(bytes).map_err(|e| StoreError::io("cut", path, e))?;
        let hasher = hash_of(path, bytes).map_err(|e| StoreError::io("read", path, e))?;
        Ok(MetricsFile { file, path: path.to_path_buf(), bytes, hasher })
    }

    /// Adds a line. If it does not fit on the disk, the file is left as it was.
    pub(crate) fn append(&mut self, metrics: &StepMetrics) -> Result<(), StoreError> {
        let line = metrics.to_line();
        if let Err(e) = self.file.write_all(line.as_bytes()) {
            // Otherwise the next line would be appended to half a line. If the cut fails too, opening the run does it.
            let _ = self.file.truncate(self.bytes);
            return Err(StoreError::io("write", &self.path, e));
        }
        self.bytes += line.len() as u64;
        self.hasher.update(line.as_bytes());
        Ok(())
    }

    /// BLAKE3 of the complete lines, hexadecimal.
    pub(crate) fn blake3(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The hash of a file's first bytes.
pub(crate) fn hash_of(path: &Path, bytes: u64) -> io::Result<blake3::Hasher> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(path)?.take(bytes))?;
    Ok(hasher)
}

/// Reads all steps. A last line without its newline is still being written, and is left out.
///
/// # Errors
/// [`StoreError::Damaged`] naming the line.
pub fn read(path: &Path) -> Result<Vec<StepMetrics>, StoreError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("read", path, e)),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(i, line)| {
        StepMetrics::from_line(line).map_err(|reason| StoreError::Damaged {
            path: path.to_path_buf(),
            reason: format!("line {}: {reason}", i + 1),
            hint: "open the run again with `ferule run`, which cuts the file back to the last checkpoint",
        })
    };
    whole.lines().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_as_it_was() {
        let metrics = StepMetrics::new("grpo", 3).with("reward", 0.1 + 0.2).with("loss", None).with("norm", 1e-300);
        let line = metrics.to_line();
        assert_eq!(
            line,
            "{\"stage\":\"grpo\",\"step\":3,\"reward\":0.30000000000000004,\"loss\":null,\"norm\":1e-300}\n"
        );
        assert_eq!(StepMetrics::from_line(&line).unwrap(), metrics);
        assert_eq!((metrics.get("loss"), metrics.get("norm")), (None, Some(1e-300)));
        let infinite = StepMetrics::new("a", 1).with("loss", f64::INFINITY).to_line();
        assert_eq!(StepMetrics::from_line(&infinite).unwrap().values, [("loss".to_owned(), None)]);
        let error = StepMetrics::from_line("{\"stage\":\"a\",\"step\":1,\"loss\":\"low\"}").unwrap_err();
        assert_eq!(error, "`loss` is not a number");
    }

    /// Writes half of the second line and fails, then goes on.
    struct Stumbling(fs::File, u32);

    impl io::Write for Stumbling {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 {
                2 => self.0.write(&piece[..piece.len() / 2]),
                3 => Err(io::ErrorKind::StorageFull.into()),
                _ => self.0.write(piece),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    impl OutFile for Stumbling {
        fn sync(&mut self) -> io::Result<()> {
            self.0.sync()
        }

        fn truncate(&mut self, len: u64) -> io::Result<()> {
            self.0.truncate(len)
        }
    }

    #[test]
    fn a_line_that_does_not_fit_leaves_no_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let file = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let mut metrics = MetricsFile {
            file: Box::new(Stumbling(file, 0)),
            path: path.clone(),
            bytes: 0,
            hasher: blake3::Hasher::new(),
        };
        metrics.append(&StepMetrics::new("a", 1)).unwrap();
        let error = metrics.append(&StepMetrics::new("a", 2)).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        metrics.append(&StepMetrics::new("a", 3)).unwrap();
        assert_eq!(read(&path).unwrap(), [StepMetrics::new("a", 1), StepMetrics::new("a", 3)]);
        assert_eq!(metrics.bytes(), fs::metadata(&path).unwrap().len());
    }

    #[test]
    fn a_bad_line_is_named_and_a_torn_last_one_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert!(read(&path).unwrap().is_empty());
        fs::write(&path, "{\"stage\":\"a\",\"step\":1}\n{\"stage\":\"a\",\"st").unwrap();
        assert_eq!(read(&path).unwrap(), [StepMetrics::new("a", 1)]);
        fs::write(&path, "{\"stage\":\"a\",\"step\":1}\n{\"step\":2}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 2: no `stage`"));
    }
}
