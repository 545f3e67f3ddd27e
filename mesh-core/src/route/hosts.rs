//! Virtual hosts by authority: exact, then the longest suffix, then the longest prefix, then `*` (gRFC A27).
//!
//! ASCII case is ignored and the port is part of the host, as in Envoy.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::config::route::VirtualHost;
use crate::matcher::domain::DomainPattern;

/// Position of a virtual host in its configuration.
pub(super) type HostIx = u32;

/// Domains by form: one hash lookup each for exact ones, and per distinct length of a wildcard.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: HashMap<Arc<str>, HostIx, FixedState>,
    suffixes: ByLength,
    prefixes: ByLength,
    any: Option<HostIx>,
}

/// Wildcards of one side, and their distinct lengths, longest first.
#[derive(Debug, Default)]
struct ByLength {
    texts: HashMap<Arc<str>, HostIx, FixedState>,
    lengths: Vec<usize>,
}

// === impl HostIndex ===

impl HostIndex {
    /// Indexes every domain. A domain that two virtual hosts share belongs to the first (the border refuses it).
    pub(super) fn new(hosts: &[VirtualHost]) -> Self {
        let mut index = Self::default();
        for (ix, host) in (0..).zip(hosts) {
            for domain in &host.domains {
                match domain {
                    DomainPattern::Exact(name) => {
                        index.exact.entry(name.clone()).or_insert(ix);
                    }
                    DomainPattern::Suffix(tail) => index.suffixes.add(tail, ix),
                    DomainPattern::Prefix(head) => index.prefixes.add(head, ix),
                    DomainPattern::Any => {
                        index.any.get_or_insert(ix);
                    }
                }
            }
        }
        index.suffixes.sort();
        index.prefixes.sort();
        index
    }

    /// The virtual host of an authority.
    pub(super) fn find(&self, authority: &str) -> Option<HostIx> {
        // Domains are in lower case, as nearly every authority is: an exact one needs no look at its letters.
        if let Some(host) = self.exact.get(authority) {
            return Some(*host);
        }
        if authority.bytes().any(|b| b.is_ascii_uppercase()) {
            let lower = authority.to_ascii_lowercase();
            return self.exact.get(&*lower).copied().or_else(|| self.find_wildcard(&lower));
        }
        self.find_wildcard(authority)
    }

    fn find_wildcard(&self, authority: &str) -> Option<HostIx> {
        let tail = |len: usize| authority.get(authority.len() - len..);
        let head = |len: usize| authority.get(..len);
        self.suffixes
            .find(authority.len(), tail)
            .or_else(|| self.prefixes.find(authority.len(), head))
            .or(self.any)
    }
}

// === impl ByLength ===

impl ByLength {
    fn add(&mut self, text: &Arc<str>, ix: HostIx) {
        self.texts.entry(text.clone()).or_insert(ix);
        self.lengths.push(text.len());
    }

    fn sort(&mut self) {
        self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        self.lengths.dedup();
    }

    /// The longest wildcard whose text is that part of the authority; the `*` stands for at least one byte.
    fn find<'a>(&self, available: usize, part: impl Fn(usize) -> Option<&'a str>) -> Option<HostIx> {
        let shorter = self.lengths.iter().filter(|len| **len < available);
        shorter.filter_map(|len| self.texts.get(part(*len)?)).next().copied()
    }
}
