//! The header of a GGUF file: keys with typed values, and where the tensors are.
//!
//! [`Header::parse`] reads the bytes once from front to back. It never allocates memory for more values than the
//! remaining bytes can hold.

use super::{ALIGNMENT, Kind, MAGIC};
use std::collections::{BTreeMap, HashSet};

/// The most values in all lists together. The largest vocabularies have half a million tokens and as many merges.
const MOST_VALUES: usize = 1 << 22;
/// The most tensors, and the most keys.
const MOST_TENSORS: usize = 1 << 16;

/// A value of the metadata. Integers of all widths are widened.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Value>),
}

impl Value {
    /// An unsigned integer, for a count or an id.
    pub fn as_unsigned(&self) -> Option<u64> {
        match self {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A token id.
    pub fn as_id(&self) -> Option<u32> {
        self.as_unsigned().and_then(|id| u32::try_from(id).ok())
    }

    /// A number; an integer only if a float holds it exactly.
    pub fn as_float(&self) -> Option<f64> {
        const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
        match self {
            Value::Float(value) => Some(*value),
            Value::Unsigned(value) => Some(*value as f64).filter(|_| *value <= EXACT),
            Value::Signed(value) => Some(*value as f64).filter(|_| value.unsigned_abs() <= EXACT),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(value) => Some(value),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(values) => Some(values),
            _ => None,
        }
    }

    /// The name of its type, for messages.
    fn type_name(&self) -> &'static str {
        match self {
            Value::Unsigned(_) | Value::Signed(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a bool",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
        }
    }
}

/// The type that a key's value must have.
#[derive(Debug, Clone, Copy)]
enum Type {
    /// A size or a number of things.
    Count,
    /// A token id.
    Id,
    Number,
    Bool,
    Text,
    Integers,
    Numbers,
    Texts,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Type::Count => "a count of at most 2⁴⁰",
            Type::Id => "a token id",
            Type::Number => "a number",
            Type::Bool => "a bool",
            Type::Text => "a text",
            Type::Integers => "a list of integers",
            Type::Numbers => "a list of numbers",
            Type::Texts => "a list of texts",
        }
    }

    fn fits(self, value: &Value) -> bool {
        let all = |fits: fn(&Value) -> bool| value.as_list().is_some_and(|items| items.iter().all(fits));
        match self {
            Type::Count => value.as_unsigned().is_some_and(|count| count <= 1 << 40),
            Type::Id => value.as_id().is_some(),
            Type::Number => value.as_float().is_some(),
            Type::Bool => value.as_bool().is_some(),
            Type::Text => value.as_text().is_some(),
            Type::Integers => all(|item| matches!(item, Value::Signed(_)) || item.as_unsigned().is_some()),
            Type::Numbers => all(|item| item.as_float().is_some()),
            Type::Texts => all(|item| item.as_text().is_some()),
        }
    }
}

/// Every key that is read, with its type. A key of a model begins with the name of its architecture, here `*`.
const TYPES: [(&str, Type); 31] = [
    ("general.architecture", Type::Text),
    ("*.attention.head_count", Type::Count),
    ("*.attention.head_count_kv", Type::Count),
    ("*.attention.key_length", Type::Count),
    ("*.attention.layer_norm_rms_epsilon", Type::Number),
    ("*.attention.sliding_window", Type::Count),
    ("*.attention.value_length", Type::Count),
    ("*.block_count", Type::Count),
    ("*.context_length", Type::Count),
    ("*.embedding_length", Type::Count),
    ("*.feed_forward_length", Type::Count),
    ("*.rope.dimension_count", Type::Count),
    ("*.rope.freq_base", Type::Number),
    ("*.rope.scaling.factor", Type::Number),
    ("*.rope.scaling.type", Type::Text),
    (super::LLAMA3_SCALING, Type::Numbers),
    ("tokenizer.chat_template", Type::Text),
    ("tokenizer.ggml.add_bos_token", Type::Bool),
    ("tokenizer.ggml.add_eos_token", Type::Bool),
    ("tokenizer.ggml.add_space_prefix", Type::Bool),
    ("tokenizer.ggml.bos_token_id", Type::Id),
    ("tokenizer.ggml.eos_token_id", Type::Id),
    ("tokenizer.ggml.eot_token_id", Type::Id),
    ("tokenizer.ggml.merges", Type::Texts),
    ("tokenizer.ggml.model", Type::Text),
    ("tokenizer.ggml.padding_token_id", Type::Id),
    ("tokenizer.ggml.pre", Type::Text),
    ("tokenizer.ggml.scores", Type::Numbers),
    ("tokenizer.ggml.token_type", Type::Integers),
    ("tokenizer.ggml.tokens", Type::Texts),
    ("tokenizer.ggml.unknown_token_id", Type::Id),
];

/// Where a tensor lies and how it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub name: String,
    /// Outermost dimension first; the file stores them in the opposite order.
    pub shape: Vec<usize>,
    pub kind: Kind,
    /// The first byte, counted from the start of the file.
    pub start: usize,
    /// Number of bytes.
    pub len: usize,
}

/// Everything in the file before the tensors' data.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    pub metadata: BTreeMap<String, Value>,
    pub entries: Vec<Entry>,
}

/// Why the bytes are not a GGUF file that can be read.
pub type Problem = String;

impl Header {
    /// Reads and checks the header of a whole file.
    pub fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let mut reader = Reader { bytes, at: 0, values_left: MOST_VALUES };
        if reader.take(4)? != MAGIC {
            return Err("it does not begin with GGUF".into());
        }
        match reader.u32()? {
            2 | 3 => {}
            1 => return Err("version 1 is not read".into()),
            version if version.swap_bytes() <= 3 => return Err("big-endian files are not read".into()),
            version => return Err(format!("version {version} is not known")),
        }
        // A tensor takes at least 24 bytes of the header, and a key at least 13.
        let tensors = reader.count(24, "tensors")?;
        let keys = reader.count(13, "keys")?;
        if tensors > MOST_TENSORS || keys > MOST_TENSORS {
            return Err(format!("{tensors} tensors and {keys} keys are more than any model has"));
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..keys {
            let key = reader.text()?;
            let kind = reader.u32()?;
            let value = reader.value(kind, 0).map_err(|problem| format!("key `{key}`: {problem}"))?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("key `{key}` occurs twice"));
            }
        }
        check_types(&metadata)?;
        let raw: Vec<RawEntry> = (0..tensors).map(|_| reader.entry()).collect::<Result<_, _>>()?;
        let alignment = match metadata.get("general.alignment") {
            None => ALIGNMENT,
            Some(value) => match value.as_unsigned() {
                Some(alignment) if alignment.is_power_of_two() && alignment <= 1 << 20 => alignment as usize,
                _ => return Err(format!("general.alignment {value:?} is not a power of two")),
            },
        };
        let data = reader.at.next_multiple_of(alignment);
        let entries = place(raw, data, alignment, bytes.len())?;
        Ok(Self { metadata, entries })
    }
}

/// Returns an error for a key that is read and has a value of another type.
fn check_types(metadata: &BTreeMap<String, Value>) -> Result<(), Problem> {
    let architecture = metadata.get("general.architecture").and_then(Value::as_text).unwrap_or("");
    for (key, expected) in TYPES {
        let key = key.replace('*', architecture);
        if let Some(value) = metadata.get(&key).filter(|value| !expected.fits(value)) {
            return Err(format!("key `{key}` is {} where {} is needed", value.type_name(), expected.name()));
        }
    }
    Ok(())
}

struct RawEntry {
    name: String,
    shape: Vec<usize>,
    kind: Kind,
    offset: usize,
}

/// Converts offsets to places in the file. Checks that every tensor lies within the file and that no two overlap.
fn place(raw: Vec<RawEntry>, data: usize, alignment: usize, file_len: usize) -> Result<Vec<Entry>, Problem> {
    let mut entries = Vec::with_capacity(raw.len());
    let mut names = HashSet::new();
    for RawEntry { name, shape, kind, offset } in raw {
        if !names.insert(name.clone()) {
            return Err(format!("tensor `{name}` occurs twice"));
        }
        if !offset.is_multiple_of(alignment) {
            return Err(format!("tensor `{name}` begins at offset {offset}, not at a multiple of {alignment}"));
        }
        let (elements, size) = kind.block();
        if !shape.last().is_some_and(|row| row.is_multiple_of(elements)) {
            return Err(format!("tensor `{name}` has rows that are not whole blocks of {elements}"));
        }
        let count = shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim));
        let len = count.and_then(|count| (count / elements).checked_mul(size));
        let start = data.checked_add(offset);
        let end = start.zip(len).and_then(|(start, len)| start.checked_add(len));
        let (Some(start), Some(len), Some(end)) = (start, len, end) else {
            return Err(format!("tensor `{name}` of shape {shape:?} is larger than any file"));
        };
        if end > file_len {
            return Err(format!("tensor `{name}` ends at byte {end} of a file of {file_len}: the file is cut short"));
        }
        entries.push(Entry { name, shape, kind, start, len });
    }
    let mut by_start: Vec<&Entry> = entries.iter().collect();
    by_start.sort_by_key(|entry| entry.start);
    for pair in by_start.windows(2) {
        if pair[0].start + pair[0].len > pair[1].start {
            return Err(format!("tensors `{}` and `{}` overlap", pair[0].name, pair[1].name));
        }
    }
    Ok(entries)
}

/// Reads little-endian values. Every read is checked against the end of the bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// How many more values lists may hold. The limit is needed because a value takes more memory than its bytes in the
    /// file.
    values_left: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| format!("the header is cut short at byte {}", self.bytes.len()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were asked for"))
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Problem> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads a count of items of at least `least` bytes each. It is an error if the remaining bytes cannot hold so
    /// many.
    fn count(&mut self, least: usize, what: &str) -> Result<usize, Problem> {
        let count = self.u64()?;
        let possible = (self.bytes.len() - self.at) / least;
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= possible)
            .ok_or_else(|| format!("{count} {what} cannot be in the {possible} places that are left"))
    }

    fn text(&mut self) -> Result<String, Problem> {
        let len = self.count(1, "bytes of text")?;
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| "a text is not UTF-8".to_string())?;
        Ok(text.to_string())
    }

    /// Reads a value of ggml's kind `kind`. Lists may contain lists, to a depth of four.
    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, Problem> {
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => match self.take(1)?[0] {
                flag @ (0 | 1) => Value::Bool(flag == 1),
                other => return Err(format!("a bool is {other}")),
            },
            8 => Value::Text(self.text()?),
            9 => {
                if depth > 3 {
                    return Err("lists are nested too deep".into());
                }
                let kind = self.u32()?;
                let least = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    8 | 10..=12 => 8,
                    9 => 12,
                    _ => return Err(format!("a list of kind {kind} is not known")),
                };
                let count = self.count(least, "values")?;
                self.values_left = self.values_left.checked_sub(count).ok_or("it holds more values than any model")?;
                Value::List((0..count).map(|_| self.value(kind, depth + 1)).collect::<Result<_, _>>()?)
            }
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(format!("a value of kind {kind} is not known")),
        })
    }

    fn entry(&mut self) -> Result<RawEntry, Problem> {
        let name = self.text()?;
        let dims = self.u32()?;
        if !(1..=4).contains(&dims) {
            return Err(format!("tensor `{name}` has {dims} dimensions"));
        }
        let too_large = |_| format!("tensor `{name}` is larger than any file");
        let mut shape = Vec::new();
        for _ in 0..dims {
            shape.push(usize::try_from(self.u64()?).map_err(too_large)?);
        }
        shape.reverse();
        let number = self.u32()?;
        let kind = Kind::from_number(number).ok_or_else(|| {
            let known = Kind::ALL.map(|kind| format!("{kind:?}")).join(", ");
            format!("tensor `{name}` is stored as ggml's type {number}, which is not read; these are: {known}")
        })?;
        let offset = usize::try_from(self.u64()?).map_err(too_large)?;
        Ok(RawEntry { name, shape, kind, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_type_is_refused_by_name() {
        let list = |item: Value| Value::List(vec![item]);
        let values = [
            Value::Unsigned(7),
            Value::Signed(-7),
            Value::Float(0.5),
            Value::Bool(true),
            Value::Text("7".into()),
            list(Value::Unsigned(7)),
            list(Value::Float(0.5)),
            list(Value::Text("7".into())),
            list(Value::Bool(true)),
        ];
        for (key, expected) in TYPES.into_iter().skip(1) {
            let key = key.replace('*', "qwen3");
            let fitting = values.iter().filter(|value| {
                let architecture = ("general.architecture".to_string(), Value::Text("qwen3".into()));
                let checked = check_types(&BTreeMap::from([architecture, (key.clone(), (*value).clone())]));
                let refused = |problem: &Problem| problem.starts_with(&format!("key `{key}` is a"));
                checked.as_ref().map_err(refused).map_or_else(|named| !named, |()| true)
            });
            let fitting: Vec<usize> =
                fitting.filter_map(|value| values.iter().position(|other| other == value)).collect();
            let right: &[usize] = match expected {
                Type::Count | Type::Id => &[0],
                Type::Number => &[0, 1, 2],
                Type::Bool => &[3],
                Type::Text => &[4],
                Type::Integers => &[5],
                Type::Numbers => &[5, 6],
                Type::Texts => &[7],
            };
            assert_eq!(fitting, right, "{key}");
        }
        assert_eq!(Value::Unsigned((1 << 53) + 1).as_float(), None);
        assert!(!Type::Id.fits(&Value::Unsigned(1 << 32)) && !Type::Count.fits(&Value::Unsigned(u64::MAX)));
    }
}
