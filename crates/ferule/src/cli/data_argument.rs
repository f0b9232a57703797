//! `--data`, the same in every command on a data folder.

use std::path::PathBuf;

/// Where the data folder lies.
#[derive(clap::Args, Clone, Debug)]
pub struct DataArguments {
    /// The data folder
    #[arg(long, value_name = "DIR", default_value = "ferule-data")]
    pub data: PathBuf,
}
