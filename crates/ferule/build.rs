//! Links the binary so that it needs no shared library beyond libc's, and is no larger than it must be.
//!
//! The standard library asks for `libgcc_s.so`, to unwind panics. A linker script of that name, found before the library, names the
//! archive with the same functions. Symbols are a quarter of the file and of use to profilers only: FERULE_SYMBOLS=1 keeps them.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=FERULE_SYMBOLS");
    let target = |key: &str| std::env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    std::fs::write(folder.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n").expect("cargo's folder is writable");
    println!("cargo::rustc-link-arg-bins=-L{}", folder.display());
    if std::env::var_os("FERULE_SYMBOLS").is_none() {
        println!("cargo::rustc-link-arg-bins=-Wl,--strip-all");
    }
}
