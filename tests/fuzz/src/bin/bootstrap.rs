//! The bootstrap: any text is read or refused with a message, never with a panic.
#![no_main]

use libfuzzer_sys::arbitrary::Unstructured;
use mesh_xds::bootstrap::Bootstrap;

const SEED: &str = r#"{
  "xds_servers": [{"server_uri": "dns:///control.test:443", "channel_creds": [{"type": "google_default"}, {"type": "tls",
    "config": {"ca_certificate_file": "/ca.pem"}}], "server_features": ["xds_v3", "fail_on_data_errors"]},
    {"server_uri": "unix:/run/xds.sock", "channel_creds": [{"type": "insecure"}]}],
  "node": {"id": "n", "cluster": "c", "locality": {"region": "r", "zone": "z", "sub_zone": "s"}, "metadata": {"A": [1, true, null, "b"]}},
  "certificate_providers": {"default": {"plugin_name": "file_watcher", "config": {"certificate_file": "/c", "private_key_file": "/k",
    "ca_certificate_file": "/a", "refresh_interval": "600s"}}},
  "server_listener_resource_name_template": "xds.test/server/%s",
  "client_default_listener_resource_name_template": "%s",
  "authorities": {"a.test": {"client_listener_resource_name_template": "xdstp://a.test/envoy.config.listener.v3.Listener/%s"}}
}"#;

const PARTS: [&str; 16] = [
    "null",
    "{}",
    "[]",
    "\"\"",
    "true",
    "-1",
    "1e999",
    "\"%s\"",
    "\"xdstp://\"",
    "\"dns:///\"",
    "\"unix:\"",
    "\"tls\"",
    "\"insecure\"",
    "\"3s\"",
    "\"-3s\"",
    "[[[[[[[[[[[[[[[[",
];

/// The seed with up to eight of its tokens replaced.
fn mutated(input: &mut Unstructured<'_>) -> String {
    let mut tokens: Vec<&str> = SEED.split_inclusive([',', ':', '{', '}', '[', ']']).collect();
    for _ in 0..input.int_in_range(0..=8).unwrap_or(0) {
        let at = input.choose_index(tokens.len()).unwrap_or(0);
        let part = input.choose_index(PARTS.len() + 1).unwrap_or(0);
        tokens[at] = PARTS.get(part).copied().unwrap_or("");
    }
    tokens.concat()
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let raw = input.arbitrary::<bool>().unwrap_or(false);
    let text =
        if raw { String::from_utf8_lossy(input.take_rest()).into_owned() } else { mutated(&mut input) };
    if let Err(error) = text.parse::<Bootstrap>() {
        assert!(!error.to_string().is_empty());
    }
});
