//! Which filter chain a connection belongs to (gRFC A36, `FilterChainMatch`).
//!
//! One criterion after the other, and only the chains that are most specific in it go on to the next: destination
//! prefix, transport protocol, source type, source prefix, source port. There is no way back: when a later criterion
//! leaves no chain, the connection belongs to the default chain, however well another prefix would have suited.
//!
//! Deviation from gRPC C-core and Go: the destination prefix counts on every listener, not only on a wildcard one.
//! An address is always compared in its canonical form (`::ffff:10.0.0.1` is `10.0.0.1`).
//!
//! A connection over a unix-domain socket has no addresses: a chain that asks for a prefix or a port does not match it.
//! Its peer is on the same host, so it is `SAME_IP_OR_LOOPBACK`, as in Envoy. Deviation: Envoy compares prefixes
//! with an address that it makes up.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::listener::{ChainMatch, ServerListener, SourceType};

/// The two ends of a connection; all that a chain is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// A TCP connection.
    Ip {
        /// Our address.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// A connection over a unix-domain socket.
    Unix,
}

// === impl ServerListener ===

impl ServerListener {
    /// The position of a connection's chain: that of `chains`, or their number for the default chain. None closes
    /// the connection.
    #[must_use]
    pub fn find_chain(&self, ends: &Ends) -> Option<usize> {
        let (local, remote, port) = match ends {
            Ends::Ip { local, remote } => {
                (Some(local.ip().to_canonical()), Some(remote.ip().to_canonical()), Some(remote.port()))
            }
            Ends::Unix => (None, None, None),
        };
        // Without addresses both are none, and the same.
        let source = if remote == local || remote.is_some_and(|remote| remote.is_loopback()) {
            SourceType::SameIpOrLoopback
        } else {
            SourceType::External
        };
        let mut left: Vec<(usize, &ChainMatch)> =
            self.chains.iter().map(|chain| &chain.matches).enumerate().collect();
        keep_best(&mut left, |m| prefix_rank(&m.destination, local));
        keep_best(&mut left, |m| Some(u8::from(m.raw_buffer)));
        keep_best(&mut left, |m| match m.source_type {
            SourceType::Any => Some(0),
            wanted => (wanted == source).then_some(1),
        });
        keep_best(&mut left, |m| prefix_rank(&m.source, remote));
        keep_best(&mut left, |m| match &m.source_ports[..] {
            [] => Some(0),
            ports => port.is_some_and(|port| ports.contains(&port)).then_some(1),
        });
        let default = || self.default_chain.as_ref().map(|_| self.chains.len());
        left.first().map(|(position, _)| *position).or_else(default)
    }
}

/// Keeps the chains of the highest rank; a chain without a rank does not match.
fn keep_best<R: Ord>(left: &mut Vec<(usize, &ChainMatch)>, rank: impl Fn(&ChainMatch) -> Option<R>) {
    let best = left.iter().filter_map(|(_, m)| rank(m)).max();
    left.retain(|(_, m)| rank(m).is_some_and(|r| best.as_ref() == Some(&r)));
}

/// No prefix ranks below a prefix of length 0, which still asks for the address family.
fn prefix_rank(prefixes: &[IpNet], address: Option<IpAddr>) -> Option<u8> {
    if prefixes.is_empty() {
        return Some(0);
    }
    let address = address?;
    prefixes.iter().filter(|net| net.contains(&address)).map(|net| net.prefix_len() + 1).max()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::endpoints::Address;
    use crate::config::listener::{FilterChain, HttpConfig, RouteSource};

    fn chain(matches: ChainMatch) -> FilterChain {
        FilterChain {
            name: Arc::from(""),
            matches,
            tls: None,
            network_rbac: Vec::new(),
            http: HttpConfig::new(RouteSource::Rds(Arc::from("r"))),
        }
    }

    fn listener(chains: Vec<ChainMatch>, default: bool) -> ServerListener {
        ServerListener {
            address: Address::Socket("0.0.0.0:80".parse().unwrap()),
            chains: chains.into_iter().map(chain).collect(),
            default_chain: default.then(|| chain(ChainMatch::default())),
        }
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn to(list: &[&str]) -> ChainMatch {
        ChainMatch { destination: nets(list), ..ChainMatch::default() }
    }

    fn from(list: &[&str]) -> ChainMatch {
        ChainMatch { source: nets(list), ..ChainMatch::default() }
    }

    fn ends(local: &str, remote: &str) -> Ends {
        Ends::Ip { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    #[test]
    fn the_longest_destination_prefix_wins_and_a_length_of_zero_beats_none() {
        let l = listener(vec![to(&[]), to(&["0.0.0.0/0"]), to(&["10.0.0.0/8", "10.1.0.0/16"])], false);
        assert_eq!(l.find_chain(&ends("10.1.2.3:80", "9.9.9.9:1")), Some(2));
        assert_eq!(l.find_chain(&ends("11.1.2.3:80", "9.9.9.9:1")), Some(1));
        assert_eq!(l.find_chain(&ends("[2001:db8::1]:80", "[2001:db8::2]:1")), Some(0));
    }

    #[test]
    fn a_later_criterion_that_fails_leads_to_the_default_chain_and_never_back() {
        let narrow = ChainMatch { source: nets(&["192.168.0.0/16"]), ..to(&["10.0.0.0/8"]) };
        let l = listener(vec![to(&["0.0.0.0/0"]), narrow.clone()], true);
        assert_eq!(l.find_chain(&ends("10.0.0.1:80", "192.168.0.1:1")), Some(1));
        assert_eq!(l.find_chain(&ends("10.0.0.1:80", "9.9.9.9:1")), Some(2));
        let l = listener(vec![to(&["0.0.0.0/0"]), narrow], false);
        assert_eq!(l.find_chain(&ends("10.0.0.1:80", "9.9.9.9:1")), None);
    }

    #[test]
    fn raw_buffer_shadows_an_unset_transport_protocol_within_its_prefix() {
        let raw = ChainMatch { raw_buffer: true, source: nets(&["9.0.0.0/8"]), ..ChainMatch::default() };
        let l = listener(vec![to(&[]), raw], false);
        assert_eq!(l.find_chain(&ends("10.0.0.1:80", "9.9.9.9:1")), Some(1));
        assert_eq!(l.find_chain(&ends("10.0.0.1:80", "8.9.9.9:1")), None);
    }

    #[test]
    fn source_type_tells_the_same_host_from_others() {
        let of = |source_type| ChainMatch { source_type, ..ChainMatch::default() };
        let l = listener(vec![of(SourceType::Any), of(SourceType::SameIpOrLoopback)], false);
        assert_eq!(l.find_chain(&ends("10.0.0.1:80", "10.0.0.1:1")), Some(1));
        assert_eq!(l.find_chain(&ends("127.0.0.1:80", "127.0.0.9:1")), Some(1));
        assert_eq!(l.find_chain(&ends("10.0.0.1:80", "10.0.0.2:1")), Some(0));
        let l = listener(vec![of(SourceType::External)], false);
        assert_eq!(l.find_chain(&ends("10.0.0.1:80", "127.0.0.1:1")), None);
    }

    #[test]
    fn a_connection_over_a_unix_socket_is_of_this_host_and_has_neither_prefix_nor_port() {
        let of = |source_type| ChainMatch { source_type, ..ChainMatch::default() };
        let find = |chains| listener(chains, true).find_chain(&Ends::Unix);
        assert_eq!(find(vec![to(&[])]), Some(0));
        assert_eq!(find(vec![of(SourceType::SameIpOrLoopback)]), Some(0));
        let port = ChainMatch { source_ports: (1..=u16::MAX).collect(), ..ChainMatch::default() };
        for other in [
            to(&["0.0.0.0/0", "::/0", "255.255.255.255/32"]),
            from(&["0.0.0.0/0", "::/0", "255.255.255.255/32", "127.0.0.0/8"]),
            of(SourceType::External),
            port,
        ] {
            assert_eq!(find(vec![other.clone()]), Some(1), "{other:?}");
            assert_eq!(listener(vec![other], false).find_chain(&Ends::Unix), None);
        }
    }

    #[test]
    fn source_prefix_then_source_port() {
        let port = ChainMatch { source_ports: vec![5, 6], ..from(&["9.0.0.0/8"]) };
        let l = listener(vec![from(&[]), from(&["9.0.0.0/8"]), port], true);
        assert_eq!(l.find_chain(&ends("10.0.0.1:80", "9.0.0.1:6")), Some(2));
        assert_eq!(l.find_chain(&ends("10.0.0.1:80", "9.0.0.1:7")), Some(1));
        assert_eq!(l.find_chain(&ends("10.0.0.1:80", "8.0.0.1:6")), Some(0));
    }

    #[test]
    fn a_mapped_address_is_compared_as_the_one_it_maps() {
        let l = listener(vec![from(&["9.0.0.0/8"])], false);
        assert_eq!(l.find_chain(&ends("[::ffff:10.0.0.1]:80", "[::ffff:9.0.0.1]:6")), Some(0));
    }

    #[test]
    fn a_listener_without_chains_closes_or_uses_its_default() {
        let e = ends("10.0.0.1:80", "9.0.0.1:6");
        assert_eq!(listener(vec![], false).find_chain(&e), None);
        assert_eq!(listener(vec![], true).find_chain(&e), Some(0));
    }
}
