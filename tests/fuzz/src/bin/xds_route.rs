//! The border of route resources.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::border(mesh_xds::Kind::Route, data));
