//! The border of endpoints resources.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::border(mesh_xds::Kind::Endpoints, data));
