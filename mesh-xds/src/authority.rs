//! Which authority a resource belongs to, and which control planes serve that authority (gRFC A47, A71).
//!
//! A name of the form `xdstp://AUTHORITY/TYPE/ID?context` belongs to its authority, any other name to the top level of
//! the bootstrap. An authority without control planes of its own is served by those of the top level. Two entries of
//! the bootstrap are one control plane, with one connection, where everything that they say is equal.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ads::Kind;
use crate::bootstrap::{Bootstrap, ServerConfig};
use crate::xdstp::{self, Xdstp};

/// One authority of a bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AuthorityIx(usize);

/// One control plane of a bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerIx(usize);

/// The authorities and control planes of one bootstrap.
#[derive(Debug)]
pub(crate) struct Authorities {
    servers: Vec<ServerConfig>,
    /// The control planes of each authority, best first; never empty.
    lists: Vec<Vec<ServerIx>>,
    by_name: BTreeMap<String, AuthorityIx>,
}

/// Where the names are that have no authority.
const TOP_LEVEL: AuthorityIx = AuthorityIx(0);

// === impl AuthorityIx ===

impl AuthorityIx {
    pub(crate) fn get(self) -> usize {
        self.0
    }

    pub(crate) fn all(count: usize) -> impl Iterator<Item = Self> {
        (0..count).map(Self)
    }
}

// === impl ServerIx ===

impl ServerIx {
    pub(crate) fn get(self) -> usize {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn of_test(index: usize) -> Self {
        Self(index)
    }
}

// === impl Authorities ===

impl Authorities {
    pub(crate) fn new(bootstrap: &Bootstrap) -> Self {
        let mut servers = Vec::new();
        let mut lists = vec![indices(&mut servers, bootstrap.servers())];
        let mut by_name = BTreeMap::new();
        for (name, authority) in bootstrap.authorities() {
            let own = indices(&mut servers, authority.servers());
            let list = if own.is_empty() { indices(&mut servers, bootstrap.servers()) } else { own };
            by_name.insert(name.to_owned(), AuthorityIx(lists.len()));
            lists.push(list);
        }
        Self { servers, lists, by_name }
    }

    /// Every control plane, once.
    pub(crate) fn servers(&self) -> impl Iterator<Item = (ServerIx, &ServerConfig)> {
        self.servers.iter().enumerate().map(|(index, server)| (ServerIx(index), server))
    }

    /// The control planes of each authority, best first.
    pub(crate) fn lists(&self) -> &[Vec<ServerIx>] {
        &self.lists
    }

    /// The authority of a resource, or why it has none.
    pub(crate) fn of(&self, kind: Kind, name: &str) -> Result<AuthorityIx, Arc<str>> {
        if !xdstp::is_xdstp(name) {
            return Ok(TOP_LEVEL);
        }
        let Xdstp { authority, resource_type, .. } = Xdstp::parse(name)?;
        let expected = message(kind);
        if resource_type != expected {
            return Err(format!("its name says {resource_type:?}, where {expected:?} is wanted").into());
        }
        self.by_name.get(&*authority).copied().ok_or_else(|| {
            format!("its authority {authority:?} is not in the bootstrap; add it to `authorities`").into()
        })
    }
}

/// The name of the message of a kind, as names of the new style have it.
fn message(kind: Kind) -> &'static str {
    let url = kind.type_url();
    url.split_once('/').map_or(url, |(_, message)| message)
}

/// The places of `list` among `servers`, which gets those that are new to it.
fn indices<'a>(
    servers: &mut Vec<ServerConfig>,
    list: impl IntoIterator<Item = &'a ServerConfig>,
) -> Vec<ServerIx> {
    let mut found: Vec<ServerIx> = Vec::new();
    for server in list {
        let known = servers.iter().position(|known| known == server);
        let index = ServerIx(known.unwrap_or(servers.len()));
        if known.is_none() {
            servers.push(server.clone());
        }
        // The same control plane again would be no other one to fall back to.
        if !found.contains(&index) {
            found.push(index);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn authorities() -> Authorities {
        let server = |uri| json!({"server_uri": uri, "channel_creds": [{"type": "insecure"}]});
        let document = json!({
            "xds_servers": [server("top:1"), server("spare:1")],
            "authorities": {
                "own": {"xds_servers": [server("own:1"), server("spare:1"), server("own:1")]},
                "shared": {},
            },
        });
        Authorities::new(&document.to_string().parse().unwrap())
    }

    fn uris(authorities: &Authorities, name: &str) -> Vec<String> {
        let authority = authorities.of(Kind::Cluster, name).unwrap();
        let list = &authorities.lists()[authority.get()];
        list.iter().map(|server| authorities.servers[server.get()].uri().to_string()).collect()
    }

    #[test]
    fn a_name_belongs_to_its_authority_and_any_other_to_the_top_level() {
        let authorities = authorities();
        let cluster = |authority: &str| format!("xdstp://{authority}/envoy.config.cluster.v3.Cluster/c");
        assert_eq!(uris(&authorities, "c"), ["top:1", "spare:1"]);
        assert_eq!(uris(&authorities, "http://own/c"), ["top:1", "spare:1"]);
        assert_eq!(uris(&authorities, &cluster("own")), ["own:1", "spare:1"]);
        assert_eq!(uris(&authorities, &cluster("shared")), ["top:1", "spare:1"]);
    }

    #[test]
    fn a_control_plane_that_is_named_twice_is_one() {
        let authorities = authorities();
        let servers: Vec<_> = authorities.servers().map(|(_, server)| server.uri().as_str()).collect();
        assert_eq!(servers, ["top:1", "spare:1", "own:1"]);
    }

    #[test]
    fn entries_that_differ_in_features_are_different_control_planes() {
        let document = json!({"xds_servers": [
            {"server_uri": "a:1", "channel_creds": [{"type": "insecure"}]},
            {"server_uri": "a:1", "channel_creds": [{"type": "insecure"}],
             "server_features": ["fail_on_data_errors"]},
        ]});
        let authorities = Authorities::new(&document.to_string().parse().unwrap());
        assert_eq!(authorities.servers().count(), 2);
    }

    #[test]
    fn a_name_of_an_unknown_authority_or_of_another_type_is_an_error_that_says_so() {
        let authorities = authorities();
        let why = |name: &str| authorities.of(Kind::Cluster, name).unwrap_err().to_string();
        let unknown = why("xdstp://nobody/envoy.config.cluster.v3.Cluster/c");
        assert_eq!(unknown, r#"its authority "nobody" is not in the bootstrap; add it to `authorities`"#);
        let other = why("xdstp://own/envoy.config.listener.v3.Listener/c");
        assert!(other.contains("Listener") && other.contains("envoy.config.cluster.v3.Cluster"), "{other}");
        assert!(why("xdstp:own").contains("xdstp://"), "{}", why("xdstp:own"));
    }
}
