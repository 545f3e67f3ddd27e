//! Who gets in: the running Envoy and this mesh under the same generated policies, asked the same generated requests, byte
//! by byte, by peers with generated certificates.
//!
//! Nothing may be admitted here that Envoy refuses, and where we refuse what Envoy admits, there is a reason that the
//! page `guide/semantics.md` names. `MESH_PAIRS` is how many pairs are judged, `MESH_SEED` another seed.

mod config;
mod requests;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::rng::{Rng as _, Xoshiro};
use mesh_tests::ca::{Ca, Names};
use mesh_tests::net::Port;
use mesh_tower::tls::{CertificateProviders, Identity, Roots, StaticProvider};
use mesh_tower::{Body, MeshBuilder};
use rustls::ClientConfig;
use tokio::task::JoinSet;

use self::requests::Asked;
use self::wire::Verdict;
use crate::envoy;
use crate::lab::Lab;

/// The peers: no certificate at all in plaintext, and these.
const PEERS: [Names; 7] = [
    Names { uris: &["spiffe://td/ns/shop/sa/good"], dns: &[], subject: "good" },
    Names { uris: &["spiffe://td/ns/shop/sa/bad"], dns: &["good.shop.test"], subject: "good" },
    Names {
        uris: &["spiffe://td/ns/shop/sa/good", "spiffe://td/other"],
        dns: &["bad.shop.test", "b.test"],
        subject: "",
    },
    Names { uris: &[], dns: &["good.shop.test"], subject: "bad" },
    Names { uris: &[], dns: &["bad.shop.test", "x.test"], subject: "" },
    Names { uris: &[], dns: &[], subject: "good" },
    Names { uris: &["https://shop.test/good"], dns: &[], subject: "spiffe://td/ns/shop/sa/good" },
];

/// A policy, where each of the two applies it, and whether over TLS.
struct Site {
    envoy: SocketAddr,
    ours: SocketAddr,
    tls: bool,
    rules: String,
}

pub(crate) async fn agree(lab: Lab) -> String {
    let (pairs, seed) = (option("MESH_PAIRS", PAIRS), option("MESH_SEED", 1));
    let mut rng = Xoshiro::seeded(seed);
    let world = World::start(&lab, &mut rng).await;
    let clients: Vec<_> = PEERS.iter().map(|names| world.ca.client_config_of(*names, &[])).collect();
    let mut tally = Tally::default();
    let mut asking = JoinSet::new();
    for _ in 0..pairs {
        let site = world.sites[rng.below(world.sites.len() as u64) as usize].clone();
        let client = site.tls.then(|| rng.below(clients.len() as u64) as usize);
        let asked = Asked::draw(&mut rng, site.tls);
        let config = client.map(|client| clients[client].clone());
        asking.spawn(async move {
            let (envoy, ours) =
                tokio::join!(ask(site.envoy, &config, &asked), ask(site.ours, &config, &asked));
            (site, client, asked, envoy, ours)
        });
        if asking.len() >= AT_ONCE
            && let Some(done) = asking.join_next().await
        {
            tally.judge(done.expect("no panic"));
        }
    }
    while let Some(done) = asking.join_next().await {
        tally.judge(done.expect("no panic"));
    }
    tally.told()
}

/// The time that pairs beyond the usual number may take.
pub(crate) fn allowance() -> Duration {
    const EACH: Duration = Duration::from_millis(30);
    let more = option("MESH_PAIRS", PAIRS).saturating_sub(PAIRS);
    EACH.saturating_mul(u32::try_from(more).unwrap_or(u32::MAX))
}

#[expect(clippy::disallowed_methods, reason = "options of the one scenario that has any")]
fn option(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn ask(address: SocketAddr, config: &Option<Arc<ClientConfig>>, asked: &Asked) -> Verdict {
    let answer = tokio::time::timeout(PATIENCE, wire::ask(address, config.clone(), asked)).await;
    answer.unwrap_or(Verdict::Silence)
}

/// What was found.
#[derive(Default)]
struct Tally {
    judged: u64,
    admitted: u64,
    /// By reason: how often, and one of them.
    explained: BTreeMap<&'static str, (u64, String)>,
    wrong: Vec<String>,
}

// === impl Tally ===

impl Tally {
    fn judge(
        &mut self,
        (site, client, asked, envoy, ours): (Arc<Site>, Option<usize>, Asked, Verdict, Verdict),
    ) {
        self.judged += 1;
        self.admitted += u64::from(envoy.is_admission());
        if envoy.is_admission() == ours.is_admission()
            && envoy != Verdict::Silence
            && ours != Verdict::Silence
        {
            return;
        }
        let what = format!("Envoy {envoy:?}, we {ours:?}: {asked} by {client:?} under {}", site.rules);
        match asked.difference(ours.is_admission()) {
            Some(why) => self.explained.entry(why).or_insert((0, what)).0 += 1,
            None => self.wrong.push(what),
        }
    }

    fn told(self) -> String {
        for (why, (count, first)) in &self.explained {
            println!("       {count} times: {why}, as {first}");
        }
        let wrong = self.wrong.iter().take(SHOWN).map(|what| format!("\n  {what}")).collect::<String>();
        assert!(self.wrong.is_empty(), "{} of {} verdicts differ:{wrong}", self.wrong.len(), self.judged);
        assert!(
            self.admitted * 10 > self.judged,
            "{} of {} are admitted: too few",
            self.admitted,
            self.judged
        );
        assert!(
            self.admitted * 10 < self.judged * 9,
            "{} of {} are admitted: too many",
            self.admitted,
            self.judged
        );
        let explained: u64 = self.explained.values().map(|(count, _)| count).sum();
        format!(
            "{} pairs, {} admitted, 0 wrong, {explained} refused for a reason of ours",
            self.judged, self.admitted
        )
    }
}

/// The two of them, configured.
struct World {
    ca: Ca,
    sites: Vec<Arc<Site>>,
    _envoy: tokio::process::Child,
    _serving: JoinSet<()>,
    _directory: tempfile::TempDir,
}

// === impl World ===

impl World {
    async fn start(lab: &Lab, rng: &mut Xoshiro) -> Self {
        let ca = Ca::new("td");
        let server = ca.identity("server");
        let directory = tempfile::tempdir().expect("a directory");
        let (mut sites, mut ports, mut held) = (Vec::new(), Vec::new(), Vec::new());
        let (mut theirs, mut own) = (Vec::new(), Vec::new());
        for number in 0..POLICIES {
            let (tls, rules) = (number % 2 == 0, config::rules(rng));
            let trusts = rng.below(2) == 0;
            let (envoy, ours) = (Port::reserve(), Port::reserve());
            theirs.push(config::listener(
                envoy.address(),
                &rules,
                trusts,
                config::envoy_tls(&server, tls),
                false,
            ));
            own.push(config::listener(ours.address(), &rules, trusts, config::our_tls(tls), true));
            sites.push(Arc::new(Site {
                envoy: envoy.address(),
                ours: ours.address(),
                tls,
                rules: rules.to_string(),
            }));
            held.push(envoy);
            ports.push(ours);
        }
        let (file, file_of_ours) = (directory.path().join("envoy.json"), directory.path().join("mesh.json"));
        fs::write(&file, config::bootstrap(&theirs).to_string()).expect("a file");
        fs::write(&file_of_ours, config::bootstrap(&own).to_string()).expect("a file");

        let read = |path: std::path::PathBuf| fs::read(path).expect("a file");
        let crypto = rustls::crypto::aws_lc_rs::default_provider();
        let identity =
            Identity::from_pem(&read(server.certificate_file()), &read(server.key_file()), &crypto)
                .expect("a pair");
        let roots = Roots::from_pem(&read(ca.file())).expect("roots");
        let providers =
            CertificateProviders::new().with("default", StaticProvider::new(Some(identity), Some(roots)));
        let mesh = MeshBuilder::from_static_file(file_of_ours, providers).expect("what Envoy takes, we take");
        let mesh = mesh.build().expect("a mesh");
        let app = tower::service_fn(|_: http::Request<Body>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(Body::full("ok")))
        });
        let mut serving = JoinSet::new();
        for port in ports {
            let (mesh, tcp) = (mesh.clone(), port.listen());
            serving.spawn(async move {
                let _port = port;
                mesh.serve(tcp, app).await.expect("it serves");
            });
        }
        let envoy = envoy::spawn(lab, &file);
        drop(held);
        for site in &sites {
            for address in [site.envoy, site.ours] {
                until_open(address).await;
            }
        }
        Self { ca, sites, _envoy: envoy, _serving: serving, _directory: directory }
    }
}

async fn until_open(address: SocketAddr) {
    mesh_tests::wait::soon(async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Pairs of a request and a policy, where nothing else is said.
const PAIRS: u64 = 3_000;
const POLICIES: usize = 60;
const AT_ONCE: usize = 16;
const SHOWN: usize = 12;
/// Longer than either needs for an answer, or to close.
const PATIENCE: Duration = Duration::from_secs(5);
