//! What the fuzz targets share: valid resources, and mutations of them that know the wire format.
//!
//! The seeds and the mutations are those of the ordinary tests of `mesh-xds`, so that a finding can become one.

/// The seeds name the kinds as the crate does that they come from.
mod ads {
    pub(crate) use mesh_xds::Kind;
}
#[path = "../../../mesh-xds/src/resource/tests/seeds.rs"]
mod seeds;
#[path = "../../../mesh-xds/src/resource/tests/wire.rs"]
mod wire;

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::arbitrary::{Arbitrary, Unstructured};
use mesh_xds::{Format, Kind, Rules, StaticSource};
use mesh_xds::testing::{Decoded, decode, parse};

/// The choices of a mutation, drawn from the input of the fuzzer.
struct Choices<'a, 'b>(&'a mut Unstructured<'b>);

impl wire::Choose for Choices<'_, '_> {
    fn below(&mut self, bound: usize) -> usize {
        if bound < 2 { 0 } else { self.0.int_in_range(0..=bound - 1).unwrap_or(0) }
    }
}

/// One run: raw bytes, or mutations of a valid resource, through the production entry.
pub fn border(kind: Kind, data: &[u8]) {
    let mut input = Unstructured::new(data);
    let raw = bool::arbitrary(&mut input).unwrap_or(false);
    let bytes = if raw { input.take_rest().to_vec() } else { mutated(kind, &mut input) };
    check(kind, &bytes);
}

/// The rules under which the seeds are valid.
pub fn rules() -> Rules {
    Rules::with_providers([Arc::from("default")])
}

/// A valid static file, of every seed.
pub fn static_file() -> &'static str {
    static FILE: OnceLock<String> = OnceLock::new();
    FILE.get_or_init(|| {
        let mut file = "resources:\n".to_owned();
        for (position, (kind, yaml)) in seeds::seeds().into_iter().enumerate() {
            // Two of the seeds are listeners of one name.
            let yaml = yaml.replacen("name: l\n", &format!("name: l{position}\n"), 1);
            file.push_str(&format!("- \"@type\": {}\n", kind.type_url()));
            for line in yaml.lines() {
                file.push_str(&format!("  {line}\n"));
            }
        }
        if let Err(error) = StaticSource::from_text(&file, Format::Yaml, rules()) {
            panic!("the seeds are a valid file: {error}");
        }
        file
    })
}

/// A resource is judged without a panic, twice alike, and what is accepted names what it leads to.
pub fn check(kind: Kind, bytes: &[u8]) {
    let rules = rules();
    let judge = || decode(kind, kind.type_url(), bytes, &rules);
    let Decoded { name, verdict } = judge();
    match verdict {
        Ok(accepted) => {
            assert!(name.is_some(), "a valid resource has a name");
            assert_eq!(accepted.resource.kind(), kind);
            let _ = accepted.resource.references();
            assert_eq!(judge().verdict, Ok(accepted), "the same bytes, the same value");
        }
        Err(invalid) => {
            assert!(!invalid.to_string().is_empty());
            assert_eq!(judge().verdict, Err(invalid), "the same bytes, the same refusal");
        }
    }
}

fn mutated(kind: Kind, input: &mut Unstructured<'_>) -> Vec<u8> {
    static SEEDS: OnceLock<Vec<(Kind, Vec<u8>)>> = OnceLock::new();
    let seeds = SEEDS.get_or_init(|| {
        let encode = |(kind, yaml): &(Kind, String)| {
            let text = format!("\"@type\": {}\n{yaml}", kind.type_url());
            let found = parse(&text, Format::Yaml).expect("a seed is valid").remove(0);
            (*kind, found.value)
        };
        seeds::seeds().iter().map(encode).collect()
    });
    let of_kind: Vec<_> = seeds.iter().filter(|(of, _)| *of == kind).collect();
    let mut choices = Choices(input);
    let seed = of_kind[wire::Choose::below(&mut choices, of_kind.len())].1.clone();
    wire::mutate(seed, &mut choices)
}
