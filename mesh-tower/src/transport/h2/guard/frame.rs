//! The nine bytes before each frame (RFC 9113 §4.1), as much of them as the guard looks at.

/// Length of a frame's head.
pub(super) const HEAD: usize = 9;

/// Frame types.
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
    /// Of no RFC, so a receiver ignores it (RFC 9113 §5.5).
    pub(in super::super) const NOTHING: u8 = 0xf7;
}

/// Flags.
pub(super) mod flag {
    pub(in super::super) const END_STREAM: u8 = 0x1;
    pub(in super::super) const ACK: u8 = 0x1;
    pub(in super::super) const END_HEADERS: u8 = 0x4;
    pub(in super::super) const PADDED: u8 = 0x8;
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// Bytes that follow the head.
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

// === impl FrameHead ===

impl FrameHead {
    /// Parses the beginning of `bytes`; none if it is shorter than a head.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, d, e, f, g, ..] = *bytes else { return None };
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff,
        })
    }

    pub(super) fn encode(self) -> [u8; HEAD] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A WINDOW_UPDATE of a stream, or of the connection (stream 0).
pub(super) fn window_update(stream: u32, increment: u32) -> [u8; HEAD + 4] {
    let head = FrameHead { length: 4, kind: kind::WINDOW_UPDATE, flags: 0, stream }.encode();
    let mut frame = [0; HEAD + 4];
    let (place, rest) = frame.split_at_mut(HEAD);
    place.copy_from_slice(&head);
    rest.copy_from_slice(&increment.to_be_bytes());
    frame
}
