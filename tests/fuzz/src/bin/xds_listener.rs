//! The border of listener resources.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_fuzz::border(mesh_xds::Kind::Listener, data));
