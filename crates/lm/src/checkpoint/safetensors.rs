//! Weights in one or several safetensors files.
//!
//! The `safetensors` crate validates a header before any tensor is read. It checks the header's length against the
//! file's, the offsets for gaps and overlaps, and the shapes for overflow. A folder of shards is read through its
//! `model.safetensors.index.json`. Every tensor that the index lists must be in the shard that the index names.
//!
//! When a file is written, the crate makes only the header; this module writes the data. The crate's
//! `serialize_to_file` is not used, for three reasons: reading its tensors cannot fail, it does not flush the file to
//! disk before it renames it, and it leaves the file readable only by its owner.
//!
//! Read next: [`super::huggingface`].

use super::bytes::Bytes;
use super::numbers;
use super::source::{Storage, TensorSource, holding_all, read_for};
use crate::atomic::write_atomically;
use crate::error::FormatError;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file that holds all weights of a small model.
pub const SINGLE: &str = "model.safetensors";
/// The file that lists which shard holds which tensor.
pub const INDEX: &str = "model.safetensors.index.json";

/// The tensors of one model, in one or several files.
pub struct Weights {
    path: PathBuf,
    files: Vec<Shard>,
    /// For each tensor, the index in `files` of the file that holds it.
    places: BTreeMap<String, usize>,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights").field("path", &self.path).field("tensors", &self.places.len()).finish()
    }
}

struct Shard {
    path: PathBuf,
    bytes: Bytes,
    metadata: Metadata,
    data_start: usize,
}

impl Weights {
    /// Opens the weights of a Hugging Face folder: `model.safetensors`, or the shards that the index lists.
    ///
    /// # Errors
    /// [`FormatError::Io`] or [`FormatError::Malformed`], which name the file; see the [module](self).
    pub fn open_folder(folder: &Path) -> Result<Self, FormatError> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        if single.exists() {
            return Self::open_file(&single);
        }
        if index.exists() {
            return Self::open_shards(folder, &index);
        }
        let problem = format!("holds neither {SINGLE} nor {INDEX}");
        let hint = "pytorch_model.bin is not read (it can run code): convert it, or take a release with safetensors";
        Err(FormatError::malformed(folder, problem, hint))
    }

    /// Opens a single file.
    ///
    /// # Errors
    /// [`FormatError::Io`] or [`FormatError::Malformed`].
    pub fn open_file(path: &Path) -> Result<Self, FormatError> {
        Shard::new(Bytes::map(path)?, path).map(Self::single)
    }

    /// Opens the bytes of a single file. Messages name `path`.
    ///
    /// # Errors
    /// [`FormatError::Malformed`].
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self, FormatError> {
        Shard::new(Bytes::Owned(bytes), path).map(Self::single)
    }

    fn single(shard: Shard) -> Self {
        let places = shard.metadata.offset_keys().into_iter().map(|name| (name, 0)).collect();
        Self { path: shard.path.clone(), files: vec![shard], places }
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<Self, FormatError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = std::fs::read_to_string(index).map_err(FormatError::io(index, "read"))?;
        let parsed: Index = serde_json::from_str(&text)
            .map_err(|error| FormatError::malformed(index, error.to_string(), "download the file again"))?;
        let mut files: Vec<Shard> = Vec::new();
        let mut opened: HashMap<&str, usize> = HashMap::new();
        let mut places = BTreeMap::new();
        for (name, file) in &parsed.weight_map {
            let at = match opened.get(file.as_str()) {
                Some(&at) => at,
                None => {
                    if Path::new(file).file_name() != Some(file.as_ref()) {
                        let problem = format!("`{file}` is not the name of a file in the same folder");
                        return Err(FormatError::malformed(index, problem, "do not trust this download"));
                    }
                    let path = folder.join(file);
                    files.push(Shard::new(Bytes::map(&path)?, &path)?);
                    opened.insert(file, files.len() - 1);
                    files.len() - 1
                }
            };
            if files[at].metadata.info(name).is_none() {
                let problem = format!("`{name}` is promised in {file}, which does not hold it");
                return Err(FormatError::malformed(index, problem, "download the model again"));
            }
            places.insert(name.clone(), at);
        }
        Ok(Self { path: folder.to_path_buf(), files, places })
    }
}

impl Shard {
    fn new(bytes: Bytes, path: &Path) -> Result<Self, FormatError> {
        let (header_len, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| {
            let hint = "the download was cut short or the file is damaged: fetch it again";
            FormatError::malformed(path, format!("not a valid safetensors file: {error}"), hint)
        })?;
        Ok(Self { path: path.to_path_buf(), data_start: 8 + header_len, bytes, metadata })
    }
}

impl TensorSource for Weights {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let shard = &self.files[*self.places.get(name)?];
        Some(shard.metadata.info(name)?.shape.clone())
    }

    fn has_f32_matrices(&self) -> bool {
        let is_f32_matrix = |info: &&TensorInfo| info.dtype == Dtype::F32 && info.shape.len() == 2;
        self.places.iter().filter_map(|(name, &at)| self.files[at].metadata.info(name)).any(|info| is_f32_matrix(&info))
    }

    fn lossless_storage(&self) -> Storage {
        let infos = self.places.iter().filter_map(|(name, &at)| self.files[at].metadata.info(name));
        holding_all(infos.filter(|info| info.shape.len() == 2).filter_map(|info| match info.dtype {
            Dtype::F32 => Some(Storage::F32),
            Dtype::F16 => Some(Storage::F16),
            Dtype::BF16 => Some(Storage::Bf16),
            _ => None,
        }))
    }

    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), FormatError> {
        let place = self.places.get(name).map(|&at| &self.files[at]);
        let Some((shard, info)) = place.and_then(|shard| Some((shard, shard.metadata.info(name)?))) else {
            return Err(FormatError::MissingTensor { path: self.path.clone(), name: name.into(), expected: vec![] });
        };
        if info.shape.iter().product::<usize>() != out.len() {
            let (found, expected) = (info.shape.clone(), vec![out.len()]);
            return Err(FormatError::Shape { path: shard.path.clone(), name: name.into(), found, expected });
        }
        shard.bytes.check_length()?;
        let (from, to) = info.data_offsets;
        let bytes = &shard.bytes[shard.data_start + from..shard.data_start + to];
        match info.dtype {
            Dtype::F32 => numbers::widen_f32(bytes, out),
            Dtype::F16 => numbers::widen_f16(bytes, out),
            Dtype::BF16 => numbers::widen_bf16(bytes, out),
            other => {
                let problem = format!("tensor `{name}` is stored as {other:?}, which is not read");
                let hint = "take a release of the model in F32, F16 or BF16";
                return Err(FormatError::malformed(&shard.path, problem, hint));
            }
        }
        match numbers::first_not_finite(out) {
            None => Ok(()),
            Some((index, value)) => {
                Err(FormatError::NotFinite { path: shard.path.clone(), name: name.into(), index, value })
            }
        }
    }
}

/// Writes every tensor of a source to one safetensors file that `transformers` can read. The file is written
/// atomically.
///
/// Tensors are in the order of their names, so the same tensors give the same bytes. Values are rounded to nearest,
/// ties to even. One tensor at a time is held in memory.
///
/// # Errors
/// [`FormatError::Io`] (for example, the disk is full or the folder is not writable), the errors of the source, and
/// [`FormatError::Malformed`] for a value that is too large for half precision.
///
/// # Panics
/// For [`Storage::Q8_0`], which does not exist in safetensors.
pub fn save(path: &Path, source: &dyn TensorSource, storage: Storage) -> Result<(), FormatError> {
    let tensors = infos(source, storage);
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let header = Metadata::new(Some(format), tensors.clone()).expect("each tensor begins where the one before ends");
    let mut header = serde_json::to_vec(&header).expect("a header serialises");
    // Readers may map the data without copying, so the data start at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');

    // `write_atomically` passes on only errors of the disk, so an error of the source is kept here.
    let mut failed = None;
    let written = write_atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        for (name, info) in &tensors {
            values.resize(info.shape.iter().product(), 0.0);
            let read = read_for(path, source, name, &mut values);
            if let Err(error) = read.and_then(|()| numbers::check_fits(Some(storage), &values, name, path)) {
                failed = Some(error);
                return Err(std::io::Error::other("the source failed"));
            }
            bytes.clear();
            numbers::append_narrowed(storage, &values, &mut bytes);
            file.write_all(&bytes)?;
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => written,
    }
}

/// The header's entry of every tensor, in the order of their names.
fn infos(source: &dyn TensorSource, storage: Storage) -> Vec<(String, TensorInfo)> {
    let (dtype, width) = match storage {
        Storage::F32 => (Dtype::F32, 4),
        Storage::F16 => (Dtype::F16, 2),
        Storage::Bf16 => (Dtype::BF16, 2),
        Storage::Q8_0 => panic!("safetensors files hold no Q8_0"),
    };
    let mut end = 0;
    let entry = |name: String| {
        let shape = source.shape(&name).expect("a source has every tensor that it names");
        let start = end;
        end += width * shape.iter().product::<usize>();
        (name, TensorInfo { dtype, shape, data_offsets: (start, end) })
    };
    source.names().into_iter().map(entry).collect()
}
