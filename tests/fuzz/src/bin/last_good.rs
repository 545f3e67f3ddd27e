//! The file of last good configuration: read exactly as it was written, or refused.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use mesh_xds::Kind;
use mesh_xds::testing::{Entry, LastGoodFile, Owner};

/// Any contents.
fn contents(input: &mut Unstructured<'_>) -> Result<LastGoodFile> {
    let servers = (0..input.int_in_range(0..=2)?).map(|_| input.arbitrary()).collect::<Result<_>>()?;
    let owner = Owner { node: input.arbitrary()?, servers };
    let mut entries = Vec::new();
    for position in 0..input.int_in_range(0..=4)? {
        let name = format!("{}-{position}", input.arbitrary::<String>()?);
        let bytes = Bytes::from(input.arbitrary::<Vec<u8>>()?);
        entries.push(Entry {
            kind: *input.choose(&Kind::ALL)?,
            name: name.into(),
            bytes,
            used_at: input.arbitrary()?,
        });
    }
    Ok(LastGoodFile { owner, entries })
}

/// Changes some bytes, or the length.
fn damage(file: &mut Vec<u8>, input: &mut Unstructured<'_>) -> Result<()> {
    for _ in 0..input.int_in_range(0..=4)? {
        let at = input.choose_index(file.len().max(1))?;
        match input.int_in_range(0..=2)? {
            0 => file.truncate(at),
            1 => file.insert(at.min(file.len()), input.arbitrary()?),
            _ => file.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1),
        }
    }
    Ok(())
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    if input.arbitrary::<bool>().unwrap_or(false) {
        _ = LastGoodFile::decode(&Bytes::copy_from_slice(input.take_rest()));
        return;
    }
    let Ok(written) = contents(&mut input) else { return };
    let whole = written.encode();
    assert_eq!(LastGoodFile::decode(&whole.clone().into()).ok().as_ref(), Some(&written));
    let mut file = whole.clone();
    _ = damage(&mut file, &mut input);
    match LastGoodFile::decode(&Bytes::from(file.clone())) {
        // The first line says whose it is: a change there is another owner's file, with the same resources.
        Ok(read) => assert!(file == whole || read.entries == written.entries, "damage was not noticed"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
