//! No file of a crate takes part in an import circle: whoever reads a file can read what it needs before it.
//!
//! An import is a name that a file takes from another: by `use`, or by a path such as `crate::task::Task` or `table::read`. It
//! counts for the file that defines the name, whichever module re-exports it. `mod x;` and a re-export are no imports, and
//! neither is what only tests take. Crates cannot form a circle: cargo refuses that.

mod modules;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use modules::Modules;

/// The crates, and the fewest files that each has: the test must have seen them.
const CRATES: [(&str, usize); 6] =
    [("kernels", 30), ("lm", 30), ("store", 15), ("tasks", 40), ("train", 40), ("ferule", 30)];

#[test]
fn no_file_takes_part_in_an_import_circle() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of all crates");
    let mut told = Vec::new();
    for (name, fewest) in CRATES {
        let folder = crates.join(name).join("src");
        let root = ["lib.rs", "main.rs"].map(|root| folder.join(root)).into_iter().find(|root| root.is_file());
        let imports = Modules::read(&root.expect("a root file")).imports();
        assert!(imports.len() >= fewest, "only {} files of {name} were found", imports.len());
        told.extend(circles(&imports).iter().map(|circle| shown(circle, &imports, &folder)));
    }
    assert!(told.is_empty(), "import circles:\n{}", told.join("\n"));
}

/// Of every file, the files that it imports from, with the names.
pub type Imports = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

/// The groups of two or more files that all reach one another.
fn circles(imports: &Imports) -> Vec<BTreeSet<&Path>> {
    let reached: BTreeMap<&Path, BTreeSet<&Path>> =
        imports.keys().map(|file| (file.as_path(), reached(file, imports))).collect();
    let mut circles: Vec<BTreeSet<&Path>> = Vec::new();
    for (file, reach) in &reached {
        let circle: BTreeSet<&Path> =
            reach.iter().copied().filter(|other| reached.get(other).is_some_and(|back| back.contains(file))).collect();
        if circle.len() > 1 && !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}

fn reached<'a>(file: &'a Path, imports: &'a Imports) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        let next = imports.get(file).into_iter().flat_map(BTreeMap::keys).map(PathBuf::as_path);
        open.extend(next.filter(|next| reached.insert(*next)));
    }
    reached
}

fn shown(circle: &BTreeSet<&Path>, imports: &Imports, folder: &Path) -> String {
    let short =
        |file: &Path| file.strip_prefix(folder.parent().unwrap_or(folder)).unwrap_or(file).display().to_string();
    let crate_name = folder.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let mut lines = vec![format!("{crate_name}: {} files", circle.len())];
    for file in circle {
        for (other, names) in imports[*file].iter().filter(|(other, _)| circle.contains(other.as_path())) {
            let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            lines.push(format!("  {} -> {}: {names}", short(file), short(other)));
        }
    }
    lines.join("\n")
}

/// A crate of three files in which `a` and `b` import from one another, `b` through the root's re-export.
#[test]
fn a_circle_is_found_through_a_re_export() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    let imports = || Modules::read(&folder.path().join("lib.rs")).imports();
    let count = |imports: &Imports| circles(imports).iter().map(BTreeSet::len).collect::<Vec<_>>();

    write("lib.rs", "mod a;\nmod b;\npub use a::A;\n");
    write("a.rs", "use crate::b;\npub struct A;\nfn f() { assert!(b::g() == 1) }\n");
    write("b.rs", "use super::A;\npub fn g() -> u8 { let _ = A; 1 }\n");
    assert_eq!(count(&imports()), [2]);
    // The same names in tests and comments tie nothing.
    write("b.rs", "//! See [`crate::A`].\npub fn g() -> u8 { 1 }\n#[cfg(test)]\nmod tests { use super::super::A; }\n");
    assert!(count(&imports()).is_empty());
    // A root that uses what it re-exports imports it; its children then must not import from the root.
    write("lib.rs", "mod a;\nmod b;\npub use a::A;\npub struct Root;\nfn h() -> A { A }\n");
    write("b.rs", "pub fn g() -> u8 { let _ = crate::Root; 1 }\n");
    assert_eq!(count(&imports()), [3]);
}
