//! The limits on data files. They are here and nowhere else; `SECURITY.md` lists them.
//!
//! They are far above what training on one machine needs. They keep a damaged or hostile file from filling the memory
//! or running for ever.
//!
//! Read next: [`super::table`], which applies them.

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// The largest file that is read, in bytes.
pub const FILE_BYTES: u64 = 2 << 30;

/// The longest line of a file or of stdin that is read line by line, in bytes.
pub const LINE_BYTES: u64 = 64 << 20;

/// The most rows of a file.
pub const ROWS: usize = 10_000_000;

/// The most columns of a file; a sheet of Excel has no more.
pub const COLUMNS: usize = 16_384;

/// The most memory for one cell, in bytes: the length of its text, or the size of its parts.
pub const CELL_BYTES: usize = 64 << 20;

/// The most memory for a file's rows, and for the process that reads a workbook or Parquet, in bytes. Both formats are
/// compressed, so a short file can claim to hold anything.
pub fn memory(file_bytes: u64) -> u64 {
    (1 << 30) + 32 * file_bytes
}

/// What a workbook may expand to, in bytes.
pub fn expanded(file_bytes: u64) -> u64 {
    (256 << 20) + 64 * file_bytes
}

/// The processor time for the process that reads a workbook or Parquet, in seconds.
pub fn seconds(file_bytes: u64) -> u64 {
    5 + file_bytes / (4 << 20)
}

/// The memory of an entry in an object besides its name and its value's parts: the entry itself, two allocations, and
/// its place in the index.
const ENTRY: usize = 176;

/// The memory of a row besides its entries: the object, its allocations, and its place in the growing list of rows.
const ROW: usize = 240;

/// What is left of [`ROWS`] and [`memory`] while a file is read.
#[derive(Debug)]
pub struct Budget {
    rows: usize,
    memory: u64,
    file_bytes: u64,
}

impl Budget {
    /// For a file of that length.
    pub fn new(file_bytes: u64) -> Budget {
        Budget { rows: ROWS, memory: memory(file_bytes), file_bytes }
    }

    /// Takes a row from the budget.
    ///
    /// # Errors
    /// A row too many, or a row that needs more memory than is left; a cell above [`CELL_BYTES`], by its column.
    pub fn take(&mut self, row: &Map<String, Value>) -> Result<(), Refusal> {
        self.rows = self
            .rows
            .checked_sub(1)
            .ok_or_else(|| Refusal::new(format!("more than {ROWS} rows"), "split the file into several"))?;
        let mut needed = ROW;
        for (name, value) in row {
            let bytes = bytes(value);
            if bytes > CELL_BYTES {
                let problem = format!("a cell of {} MiB, more than {}", bytes >> 20, CELL_BYTES >> 20);
                return Err(Refusal::new(problem, "split its content into several rows").in_key(name));
            }
            needed += ENTRY + name.len() + bytes;
        }
        self.memory = self.memory.checked_sub(needed as u64).ok_or_else(|| {
            let most = memory(self.file_bytes) >> 20;
            let problem = format!("the rows need more than {most} MiB of memory: 1 GiB and 32 times the file");
            Refusal::new(problem, "leave out the columns that nothing uses, or split the file into several")
        })?;
        Ok(())
    }
}

/// The memory of a value's parts.
fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(|value| size_of::<Value>() + bytes(value)).sum(),
        Value::Object(entries) => entries.iter().map(|(name, value)| ENTRY + name.len() + bytes(value)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(value: Value) -> Map<String, Value> {
        Map::from_iter([("text".to_string(), value)])
    }

    #[test]
    fn a_cell_and_all_rows_together_are_limited() {
        let mut budget = Budget::new(0);
        let error = budget.take(&row(json!("a".repeat(CELL_BYTES + 1)))).unwrap_err().to_string();
        assert!(error.starts_with("text: a cell of 64 MiB, more than 64\nhint: "), "{error}");
        let long = row(json!(["a".repeat(CELL_BYTES - 1000)]));
        let taken = (0..99).take_while(|_| budget.take(&long).is_ok()).count();
        assert_eq!(taken, 16, "1 GiB holds 16 cells of 64 MiB");
    }
}
