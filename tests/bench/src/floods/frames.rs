//! HTTP/2 frames by hand.

/// Appends a frame.
pub(super) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A header block: a GET or POST of a path.
pub(super) fn head(post: bool, path: &str) -> Vec<u8> {
    let mut block = vec![if post { 0x83 } else { 0x82 }, 0x86];
    // Literals without indexing, their names from the static table: `:path`, `:authority`.
    for (name, value) in [(0x04, path), (0x01, "flood.test")] {
        block.extend_from_slice(&[name, u8::try_from(value.len()).unwrap_or(0)]);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// A literal with incremental indexing under a new name, of so many bytes: it stays in the dynamic table.
pub(super) fn indexed(length: usize) -> Vec<u8> {
    let mut block = vec![0x40, 1, b'x', 0x7f];
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap_or(0) | 0x80);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap_or(0));
    block.extend(std::iter::repeat_n(b'y', length));
    block
}

/// The newest entry of the dynamic table.
pub(super) const NEWEST: u8 = 0x80 | 62;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
