//! The whole program, as its users have it: how long things take, beside something that does the
//! same without it.
//!
//! `cargo bench --bench end_to_end` runs everything and prints one table; a name after `--` runs
//! that part alone. Prints times and asserts none: they are the machine's. What is compared is run
//! in the same minute.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench measures time, prints it, and has failed if it panics"
)]

mod fair;
mod kms;
mod large;
mod many;
mod place;
mod prompt;
mod rest;
mod small;

/// A part: its name on the command line, and what it runs.
type Part = (&'static str, fn());

const PARTS: [Part; 12] = [
    ("large", large::one_file),
    ("several", large::several_files),
    ("sign", small::sign),
    ("verify", small::verify),
    ("batch", small::batch),
    ("scrape", small::scrape),
    ("prompt", prompt::prompt),
    ("others", small::others),
    ("flood", fair::flood),
    ("queue", fair::queue),
    ("rest", rest::at_rest),
    ("many", many::many_files),
];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    println!("{:<58} {:>10} {:>8}", "", "time", "ratio");
    for (name, part) in PARTS {
        if asked.is_empty() || asked.iter().any(|word| word == name) {
            part();
        }
    }
    place::clear();
}

/// A line of the table. The ratio is to what was run beside it.
fn line(what: &str, took: std::time::Duration, beside: Option<std::time::Duration>) {
    let ratio = beside.map(|beside| format!("{:.2}", took.as_secs_f64() / beside.as_secs_f64()));
    let (time, unit) = match took {
        short if short < std::time::Duration::from_millis(1) => (took.as_secs_f64() * 1e6, "µs"),
        _ => (took.as_secs_f64(), "s"),
    };
    println!("{what:<58} {time:>8.3} {unit} {:>8}", ratio.unwrap_or_default());
}
