//! The modules of a crate, and which file's names each file imports.

use super::Imports;
use super::source::{Source, Use};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All modules of a crate; the first one is its root.
pub struct Modules {
    all: Vec<Module>,
}

struct Module {
    file: PathBuf,
    parent: usize,
    children: BTreeMap<String, usize>,
    source: Source,
}

/// What a path leads to.
enum Target {
    /// An item, by the module that defines it and its name.
    Item(usize, String),
    Module(usize),
}

impl Modules {
    /// The crate whose root is this file.
    pub fn read(root: &Path) -> Modules {
        let mut modules = Modules { all: Vec::new() };
        let folder = root.parent().expect("a folder");
        modules.add(root, folder, 0, parse(root));
        modules
    }

    /// Adds a module with all below it; files of its children lie in `folder`.
    fn add(&mut self, file: &Path, folder: &Path, parent: usize, mut source: Source) -> usize {
        let own = self.all.len();
        let (declared, inline) = (std::mem::take(&mut source.declared), std::mem::take(&mut source.inline));
        self.all.push(Module { file: file.to_path_buf(), parent, children: BTreeMap::new(), source });
        for name in declared {
            let files = [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")];
            let file =
                files.iter().find(|file| file.is_file()).unwrap_or_else(|| panic!("no file of {name} in {folder:?}"));
            let child = self.add(file, &folder.join(&name), own, parse(file));
            self.all[own].children.insert(name, child);
        }
        for (name, inner) in inline {
            let child = self.add(file, &folder.join(&name), own, inner);
            self.all[own].children.insert(name, child);
        }
        own
    }

    /// Of every file, the files that it imports from, with the names.
    pub fn imports(&self) -> Imports {
        let mut imports: Imports = self.all.iter().map(|module| (module.file.clone(), BTreeMap::new())).collect();
        for (own, module) in self.all.iter().enumerate() {
            for (definer, name) in self.taken_by(own) {
                let other = &self.all[definer].file;
                if *other != module.file {
                    let from = imports.entry(module.file.clone()).or_default().entry(other.clone()).or_default();
                    from.insert(name);
                }
            }
        }
        imports
    }

    /// The items that a module takes, each with the module that defines it.
    fn taken_by(&self, own: usize) -> Vec<(usize, String)> {
        let source = &self.all[own].source;
        // What is only handed on is not taken.
        let used = |taken: &&Use| !taken.public || taken.name.as_ref().is_none_or(|name| source.words.contains(name));
        let mut taken = Vec::new();
        for declared in source.uses.iter().filter(used) {
            match (self.resolve(own, &declared.path, &mut BTreeSet::new()), &declared.name) {
                (Some(Target::Item(definer, name)), _) => taken.push((definer, name)),
                // Of a module taken whole, the paths that begin with its name say what is used.
                (Some(Target::Module(_)), Some(_)) | (None, _) => {}
                (Some(Target::Module(module)), None) => taken.extend(self.used_of(module, &source.words)),
            }
        }
        for path in &source.paths {
            if let Some(Target::Item(definer, name)) = self.resolve(own, path, &mut BTreeSet::new()) {
                taken.push((definer, name));
            }
        }
        taken
    }

    /// What `use module::*` brings to code with these words.
    fn used_of(&self, module: usize, words: &BTreeSet<String>) -> Vec<(usize, String)> {
        let of = |word: &String| match self.resolve(module, std::slice::from_ref(word), &mut BTreeSet::new()) {
            Some(Target::Item(definer, name)) => Some((definer, name)),
            _ => None,
        };
        words.iter().filter_map(of).collect()
    }

    /// What a path in a module leads to; nothing for what comes from another crate. `followed` are the `use` declarations behind it,
    /// each by its module and its place there: none leads anywhere a second time.
    fn resolve(&self, from: usize, path: &[String], followed: &mut BTreeSet<(usize, usize)>) -> Option<Target> {
        let mut at = from;
        for (i, name) in path.iter().enumerate() {
            let module = &self.all[at];
            let rest = &path[i + 1..];
            match name.as_str() {
                "crate" => at = 0,
                "self" => {}
                "super" => at = module.parent,
                name if module.source.items.contains(name) => return Some(Target::Item(at, name.to_string())),
                // A name may be a module and, through `use`, an item: only the module can have something behind it.
                _ => match module.children.get(name).copied() {
                    Some(child) if !rest.is_empty() => at = child,
                    child => return self.through_uses(at, name, rest, followed).or(child.map(Target::Module)),
                },
            }
        }
        Some(Target::Module(at))
    }

    fn through_uses(
        &self,
        at: usize,
        name: &str,
        rest: &[String],
        followed: &mut BTreeSet<(usize, usize)>,
    ) -> Option<Target> {
        self.all[at].source.uses.iter().enumerate().find_map(|(i, taken)| {
            let behind = match &taken.name {
                Some(own) if own == name => rest.to_vec(),
                None => [&[name.to_string()], rest].concat(),
                Some(_) => return None,
            };
            let path = [taken.path.as_slice(), &behind].concat();
            followed.insert((at, i)).then(|| self.resolve(at, &path, followed)).flatten()
        })
    }
}

fn parse(file: &Path) -> Source {
    Source::parse(&std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}
