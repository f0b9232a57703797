//! Names that become file names: of runs, stages and blobs.
//!
//! Letters of any script are allowed. Separators, leading dots and control characters are not, so that no name can
//! leave its folder, hide in it, or look like a temporary one.
//!
//! Read next: [`crate::run`].

use crate::error::StoreError;

/// The longest name, in bytes. With a prefix and a suffix it still fits in the 255 bytes that file systems allow.
pub const MAX_BYTES: usize = 120;

/// Checks that `name` can be one path component; `what` ("run", "stage", "blob") is used in the message.
///
/// # Errors
/// [`StoreError::BadName`], saying why.
pub fn check(what: &'static str, name: &str) -> Result<(), StoreError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_BYTES {
        "it is longer than 120 bytes"
    } else if name.starts_with(['.', '-']) {
        "it begins with `.` or `-`"
    } else if name.chars().any(|c| c.is_control() || c.is_whitespace() || "/\\:*?\"<>|".contains(c)) {
        "it holds a space, a separator or a character that some file systems refuse"
    } else {
        return Ok(());
    };
    Err(StoreError::BadName { what, name: name.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_any_script_pass_and_paths_do_not() {
        for good in ["judgment", "判决-2", "a.b_c"] {
            check("run", good).unwrap();
        }
        for bad in ["", ".", "..", ".hidden", "-x", "a/b", "a b", "a\\b", "a\nb", &"x".repeat(121)] {
            assert!(matches!(check("run", bad), Err(StoreError::BadName { .. })), "{bad:?}");
        }
    }
}
