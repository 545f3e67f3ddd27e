//! A static file: any text is used whole, or refused with what is wrong with it.
#![no_main]

use libfuzzer_sys::arbitrary::Unstructured;
use mesh_xds::{Format, StaticSource};

const PARTS: [&str; 18] = [
    "null",
    "{}",
    "[]",
    "\"\"",
    "true",
    "-1",
    "1e999",
    "&a ",
    "*a",
    "<<: ",
    "? ",
    "!!binary ",
    "---\n",
    "\n\n",
    "- ",
    "@type: x",
    "{{{{{{{{{{{{{{{{",
    "|\n  ",
];

/// A valid file with up to eight of its tokens replaced.
fn mutated(input: &mut Unstructured<'_>) -> String {
    let seed = mesh_fuzz::static_file();
    let mut tokens: Vec<&str> = seed.split_inclusive([',', ':', '{', '}', '[', ']', '\n']).collect();
    for _ in 0..input.int_in_range(0..=8).unwrap_or(0) {
        let at = input.choose_index(tokens.len()).unwrap_or(0);
        let part = input.choose_index(PARTS.len() + 1).unwrap_or(0);
        if let Some(token) = tokens.get_mut(at) {
            *token = PARTS.get(part).copied().unwrap_or("");
        }
    }
    tokens.concat()
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let format = if input.arbitrary::<bool>().unwrap_or(false) { Format::Json } else { Format::Yaml };
    let raw = input.arbitrary::<bool>().unwrap_or(false);
    let text =
        if raw { String::from_utf8_lossy(input.take_rest()).into_owned() } else { mutated(&mut input) };
    if let Err(error) = StaticSource::from_text(&text, format, mesh_fuzz::rules()) {
        assert!(!error.to_string().is_empty());
    }
});
