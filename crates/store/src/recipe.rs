//! Reading a resolved recipe as TOML. It knows no recipe's schema.
//!
//! Read next: [`crate::changes`], which compares two of them.

use std::path::Path;

/// A parsed recipe.
pub use toml::Table;

use crate::error::StoreError;

/// Parses a recipe; `path` is for the message.
///
/// # Errors
/// [`StoreError::RecipeSyntax`] with line and column.
pub fn parse(text: &str, path: &Path) -> Result<Table, StoreError> {
    text.parse::<Table>().map_err(|e| StoreError::RecipeSyntax { path: path.to_path_buf(), source: Box::new(e) })
}
