//! The order of the house: imports run downwards only, and no two files import each other in a
//! circle.
//!
//! Reads every path in `src` (`use`, inline `crate::`, `super::`, `self::` and child modules,
//! inside macros too) with `syn`, and resolves it through re-exports to the file that defines what
//! it names. Naming a module is no import of it; naming something in it is. Code under
//! `#[cfg(test)]` may look anywhere.
//!
//! ARCHITECTURE.md has the picture of it, which `KMS_SIG_BLESS=1 cargo test --test imports` draws
//! anew.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a test that panics has failed"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

/// The rooms, lowest first: each may import those before it.
const ROOMS: &[&str] = &[
    "chain",
    "clock",
    "escape",
    "exit",
    "message",
    "digest",
    "key",
    "context",
    "log_queue", // ground
    "fair",
    "fs",
    "trust",
    "signature",
    "kms",
    "signing",
    "policy",
    "state",
    "settle",
    "hold",
    "blocking",
    "source",
    "sink",
    "terminal",
    "daemon",
    "diagnose",
    "service",
    "control",
    "cli",
    "command",
];

/// What everybody may import, drawn as one.
const GROUND: &[&str] =
    &["chain", "clock", "escape", "exit", "message", "digest", "key", "context", "log_queue"];

/// A path of modules below the crate: `["fs", "staging"]`.
type ModPath = Vec<String>;

#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    /// What it defines itself.
    items: BTreeSet<String>,
    /// What it imports or re-exports, by the name it has here.
    uses: BTreeMap<String, Vec<String>>,
    /// Whose items all have a name here.
    globs: Vec<Vec<String>>,
    /// Every path in it, as written, with its line.
    paths: Vec<(Vec<String>, usize)>,
}

#[derive(Debug, Default)]
struct Tree(BTreeMap<ModPath, Module>);

fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("cfg")
            && attr.meta.require_list().is_ok_and(|list| {
                let text = list.tokens.to_string();
                text == "test" || text.starts_with("all (test") || text.starts_with("all(test")
            })
    })
}

impl Tree {
    fn read(src: &Path) -> Self {
        let mut tree = Self::default();
        tree.file(Vec::new(), &src.join("lib.rs"), src);
        tree
    }

    fn file(&mut self, path: ModPath, file: &Path, children: &Path) {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.items(path, file, children, &parsed.items);
    }

    fn items(&mut self, path: ModPath, file: &Path, children: &Path, items: &[syn::Item]) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for item in items {
            if let syn::Item::Mod(inner) = item {
                if is_test(&inner.attrs) {
                    continue;
                }
                let name = inner.ident.to_string();
                let mut below = path.clone();
                below.push(name.clone());
                match &inner.content {
                    Some((_, items)) => self.items(below, file, &children.join(&name), items),
                    None => {
                        let flat = children.join(format!("{name}.rs"));
                        let nested = children.join(&name).join("mod.rs");
                        let at = if flat.exists() { flat } else { nested };
                        self.file(below, &at, &children.join(&name));
                    }
                }
                continue;
            }
            if !is_test(attributes(item)) {
                module.items.extend(defines(item));
                Paths { module: &mut module }.visit_item(item);
            }
        }
        self.0.insert(path, module);
    }

    /// The file that defines what `path`, written in the module `at`, names; `None` for modules and
    /// for what is not of this crate.
    fn resolve(&self, at: &[String], path: &[String], depth: usize) -> Option<&Path> {
        assert!(depth < 32, "BUG: {path:?} in {at:?} leads in a circle");
        let (first, rest) = path.split_first()?;
        let (mut at, mut rest): (ModPath, &[String]) = match first.as_str() {
            "crate" | "kms_sig" => (Vec::new(), rest),
            "self" => (at.to_vec(), rest),
            "super" => (at[..at.len().checked_sub(1)?].to_vec(), rest),
            name => {
                let module = self.0.get(at)?;
                let mut child = at.to_vec();
                child.push(name.to_owned());
                if self.0.contains_key(&child) {
                    (child, rest)
                } else if let Some(target) = module.uses.get(name) {
                    let whole: Vec<String> = target.iter().chain(rest).cloned().collect();
                    return if target[0] == name { None } else { self.resolve(at, &whole, depth + 1) };
                } else {
                    return None; // its own, or of another crate
                }
            }
        };
        while let Some((name, after)) = rest.split_first() {
            if name == "super" {
                at.pop()?;
                rest = after;
                continue;
            }
            let module = self.0.get(&at)?;
            let mut child = at.clone();
            child.push(name.clone());
            if self.0.contains_key(&child) {
                (at, rest) = (child, after);
                continue;
            }
            if module.items.contains(name) {
                return Some(&module.file);
            }
            if let Some(target) = module.uses.get(name) {
                let whole: Vec<String> = target.iter().chain(after).cloned().collect();
                return self.resolve(&at, &whole, depth + 1);
            }
            for glob in &module.globs {
                let whole: Vec<String> = glob.iter().chain(rest).cloned().collect();
                if let Some(found) = self.resolve(&at, &whole, depth + 1) {
                    return Some(found);
                }
            }
            return None;
        }
        None
    }

    /// Every import of one file by another, with the first line that makes it.
    fn imports(&self) -> BTreeMap<(PathBuf, PathBuf), (usize, String)> {
        let mut imports = BTreeMap::new();
        for (at, module) in &self.0 {
            for (path, line) in &module.paths {
                if let Some(target) = self.resolve(at, path, 0)
                    && target != module.file
                {
                    imports
                        .entry((module.file.clone(), target.to_owned()))
                        .or_insert_with(|| (*line, path.join("::")));
                }
            }
        }
        imports
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item::*;
    match item {
        Const(i) => &i.attrs,
        Enum(i) => &i.attrs,
        Fn(i) => &i.attrs,
        Impl(i) => &i.attrs,
        Macro(i) => &i.attrs,
        Static(i) => &i.attrs,
        Struct(i) => &i.attrs,
        Trait(i) => &i.attrs,
        Type(i) => &i.attrs,
        Use(i) => &i.attrs,
        _ => &[],
    }
}

fn defines(item: &syn::Item) -> Option<String> {
    use syn::Item::*;
    Some(match item {
        Const(i) => i.ident.to_string(),
        Enum(i) => i.ident.to_string(),
        Fn(i) => i.sig.ident.to_string(),
        Macro(i) => i.ident.as_ref()?.to_string(),
        Static(i) => i.ident.to_string(),
        Struct(i) => i.ident.to_string(),
        Trait(i) => i.ident.to_string(),
        Type(i) => i.ident.to_string(),
        _ => return None,
    })
}

/// Gathers the paths of one module.
struct Paths<'m> {
    module: &'m mut Module,
}

impl Paths<'_> {
    fn tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let mut path = prefix.to_vec();
        match tree {
            syn::UseTree::Path(p) => {
                path.push(p.ident.to_string());
                self.tree(&path, &p.tree);
            }
            syn::UseTree::Name(n) if n.ident == "self" => {
                self.used(path.clone(), path.last().cloned(), n.ident.span())
            }
            syn::UseTree::Name(n) => {
                path.push(n.ident.to_string());
                self.used(path, Some(n.ident.to_string()), n.ident.span());
            }
            syn::UseTree::Rename(r) => {
                if r.ident != "self" {
                    path.push(r.ident.to_string());
                }
                self.used(path, Some(r.rename.to_string()), r.rename.span());
            }
            syn::UseTree::Glob(_) => self.module.globs.push(path),
            syn::UseTree::Group(g) => g.items.iter().for_each(|tree| self.tree(&path, tree)),
        }
    }

    fn used(&mut self, path: Vec<String>, name: Option<String>, span: proc_macro2::Span) {
        self.module.paths.push((path.clone(), span.start().line));
        if let Some(name) = name
            && path.len() > 1
        {
            self.module.uses.insert(name, path);
        }
    }

    /// Paths in the arguments of macros, which are tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end(&mut path, line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.end(&mut path, line);
                    colons = 0;
                    self.tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.end(&mut path, line);
                    colons = 0;
                }
            }
        }
        self.end(&mut path, line);
    }

    fn end(&mut self, path: &mut Vec<String>, line: usize) {
        if path.len() > 1 {
            self.module.paths.push((std::mem::take(path), line));
        }
        path.clear();
    }
}

impl<'a> Visit<'a> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |s| s.ident.span().start().line);
        if segments.len() > 1 {
            self.module.paths.push((segments, line));
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'a syn::Macro) {
        self.tokens(mac.tokens.clone());
        syn::visit::visit_macro(self, mac);
    }

    fn visit_visibility(&mut self, _: &'a syn::Visibility) {} // `pub(in path)` imports nothing
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn room(file: &Path) -> String {
    let first = file.strip_prefix(src()).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn shown(file: &Path) -> String {
    file.strip_prefix(src()).unwrap().display().to_string()
}

/// Where a room stands.
fn rank(room: &str) -> usize {
    ROOMS.iter().position(|name| *name == room).unwrap_or_else(|| {
        panic!("src/{room} is in no line of ROOMS in tests/imports.rs: say where it stands")
    })
}

#[test]
fn imports_run_downwards_only() {
    let tree = Tree::read(&src());
    let upward: Vec<String> = tree
        .imports()
        .into_iter()
        .filter(|((from, to), _)| {
            !matches!(room(from).as_str(), "lib" | "main") && rank(&room(to)) > rank(&room(from))
        })
        .map(|((from, to), (line, path))| {
            format!("{}:{line}: `{path}` is in {}, which stands above", shown(&from), shown(&to))
        })
        .collect();
    assert!(upward.is_empty(), "{} upward imports:\n{}", upward.len(), upward.join("\n"));
}

#[test]
fn no_circle_of_files() {
    let tree = Tree::read(&src());
    let imports = tree.imports();
    let mut edges: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for (from, to) in imports.keys() {
        edges.entry(from).or_default().insert(to);
    }
    let circles = circles(&edges);
    let listed: Vec<String> = circles
        .iter()
        .map(|circle| {
            let is_inside = |(from, to): &(PathBuf, PathBuf)| {
                circle.contains(from.as_path()) && circle.contains(to.as_path())
            };
            let lines: Vec<String> = imports
                .iter()
                .filter(|(edge, _)| is_inside(edge))
                .map(|((from, to), (line, path))| {
                    format!("  {}:{line} -> {} (`{path}`)", shown(from), shown(to))
                })
                .collect();
            format!("{} files:\n{}", circle.len(), lines.join("\n"))
        })
        .collect();
    assert!(circles.is_empty(), "{} circles of files:\n{}", circles.len(), listed.join("\n"));
}

#[test]
fn the_picture_of_the_rooms_is_drawn_from_the_imports() {
    let imports = Tree::read(&src()).imports();
    let node = |file: &Path| match room(file) {
        name if GROUND.contains(&name.as_str()) => "ground".to_owned(),
        name => name,
    };
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in imports.keys() {
        let (from, to) = (node(from), node(to));
        if from != to && !["lib", "main"].contains(&from.as_str()) {
            edges.entry(from).or_default().insert(to);
        }
    }
    let mut picture = String::from("```mermaid\nflowchart TD\n");
    for room in ROOMS.iter().rev() {
        for to in edges.get(*room).into_iter().flatten() {
            // What another room on the way imports as well goes without a line of its own.
            let is_led_to =
                edges.get(*room).into_iter().flatten().any(|between| reaches(&edges, between, to));
            if !is_led_to {
                picture += &format!("    {room} --> {to}\n");
            }
        }
    }
    picture += "```\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let text = fs::read_to_string(&file).unwrap();
    let (begin, end) = ("<!-- imports:begin -->\n", "<!-- imports:end -->");
    let (before, rest) = text.split_once(begin).unwrap();
    let (drawn, after) = rest.split_once(end).unwrap();
    if std::env::var_os("KMS_SIG_BLESS").is_some() {
        fs::write(&file, format!("{before}{begin}{picture}{end}{after}")).unwrap();
    } else {
        assert_eq!(drawn, picture, "draw it anew: KMS_SIG_BLESS=1 cargo test --test imports");
    }
}

/// Whether a room imports another, by way of others or not.
fn reaches(edges: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> bool {
    edges.get(from).is_some_and(|next| next.contains(to) || next.iter().any(|n| reaches(edges, n, to)))
}

/// Sets of files each of which reaches every other (Tarjan would be quicker; 150 files are few).
fn circles<'p>(edges: &BTreeMap<&'p Path, BTreeSet<&'p Path>>) -> Vec<BTreeSet<&'p Path>> {
    let reach = |from: &'p Path| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
        while let Some(at) = todo.pop() {
            todo.extend(edges.get(at).into_iter().flatten().copied().filter(|to| seen.insert(*to)));
        }
        seen
    };
    let reached: BTreeMap<&Path, BTreeSet<&Path>> = edges.keys().map(|from| (*from, reach(from))).collect();
    let mut circles = BTreeSet::new();
    for (from, to) in &reached {
        if to.contains(from) {
            circles.insert(
                to.iter().copied().filter(|at| reached.get(at).is_some_and(|r| r.contains(from))).collect(),
            );
        }
    }
    circles.into_iter().collect()
}
