//! The whole demo: CA, control plane and every replica, each a process; and the plan that the control plane serves.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Failure;
use crate::ca::Ca;
use crate::plan::{Plan, Replica, Service};
use crate::process::Process;

/// Everything that runs.
pub(crate) struct Fleet {
    pub(crate) ca: Ca,
    control: Process,
    replicas: Vec<(Replica, Process)>,
    plan: Plan,
    folder: Folder,
}

/// Which replicas there are: service, version, how many.
const TOPOLOGY: [(Service, u32, u32); 6] = [
    (Service::Ratings, 1, 2),
    (Service::Details, 1, 2),
    (Service::Reviews, 1, 1),
    (Service::Reviews, 2, 1),
    (Service::Reviews, 3, 3),
    (Service::Productpage, 1, 1),
];

/// A folder that goes when the demo does.
struct Folder(PathBuf);

/// Runs until Ctrl-C.
pub(crate) async fn run() -> Result<(), Failure> {
    let mut fleet = Fleet::start().await?;
    fleet.split([1, 1, 1]).await?;
    let page = fleet.page();
    say(&format!(
        "Bookinfo is up: {} processes, mTLS between all of them, no sidecar.\n\n  \
         http://{page}/productpage/0    open it, reload it: reviews v1, v2 and v3 share the traffic\n\n\
         Try next:\n  bookinfo --tour                a story under load: canary, outage, rotation, refusals\n\n\
         Ctrl-C ends everything.",
        fleet.replicas.len() + 1,
    ));
    tokio::signal::ctrl_c().await?;
    fleet.stop().await
}

#[expect(clippy::print_stdout, reason = "the demo talks to a person")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

// === impl Fleet ===

impl Fleet {
    /// Starts the CA, the control plane, and every replica; ready once the page answers through all of them.
    pub(crate) async fn start() -> Result<Self, Failure> {
        let folder = Folder(std::env::temp_dir().join(format!("bookinfo-{}", std::process::id())));
        let ca = Ca::new(folder.0.join("certificates"))?;
        let control =
            Process::start("control-plane".to_owned(), &["control-plane", "127.0.0.1:0"], None).await?;
        let plan = Plan { replicas: Vec::new(), reviews: [1, 0, 0] };
        let mut fleet = Self { ca, control, replicas: Vec::new(), plan, folder };
        for (service, version, count) in TOPOLOGY {
            for n in 1..=count {
                fleet.add(service, version, n).await?;
            }
        }
        fleet.apply().await?;
        fleet.settle().await?;
        Ok(fleet)
    }

    /// The address of the page.
    pub(crate) fn page(&self) -> std::net::SocketAddr {
        self.of(Service::Productpage).next().map_or(self.control.at, |(replica, _)| replica.at)
    }

    /// The replicas of a service.
    pub(crate) fn of(&self, service: Service) -> impl Iterator<Item = &(Replica, Process)> {
        self.replicas.iter().filter(move |(replica, _)| replica.service == service)
    }

    /// Sends reviews traffic to v1, v2 and v3 by these weights.
    pub(crate) async fn split(&mut self, weights: [u32; 3]) -> Result<(), Failure> {
        self.plan.reviews = weights;
        self.apply().await
    }

    /// Tells every replica of a service (and version, if one is given) the same; the sum of what they answer.
    pub(crate) async fn tell(&mut self, service: Service, command: &str) -> Result<(), Failure> {
        for (_, process) in self.replicas.iter_mut().filter(|(replica, _)| replica.service == service) {
            process.ask(command).await?;
        }
        Ok(())
    }

    /// Tells one replica.
    pub(crate) async fn tell_one(&mut self, at: &str, command: &str) -> Result<(), Failure> {
        let found = self.replicas.iter_mut().find(|(replica, _)| replica.at.to_string() == at);
        let (_, process) = found.ok_or("no such replica")?;
        process.ask(command).await.map(drop)
    }

    /// Retries made so far by policy, over every process that is alive.
    pub(crate) async fn retries(&mut self) -> Result<u64, Failure> {
        let mut sum = 0;
        for (_, process) in &mut self.replicas {
            sum += process.ask("stats").await?.get("retries").and_then(Value::as_u64).unwrap_or(0);
        }
        Ok(sum)
    }

    /// Kills one replica (SIGKILL). The plan still names it: nobody has told the control plane.
    pub(crate) async fn kill(&mut self, at: &str) -> Result<(), Failure> {
        let found = self.replicas.iter().position(|(replica, _)| replica.at.to_string() == at);
        let (_, mut process) = self.replicas.remove(found.ok_or("no such replica")?);
        process.kill().await
    }

    /// Kills the control plane (SIGKILL).
    pub(crate) async fn kill_control_plane(&mut self) -> Result<(), Failure> {
        self.control.kill().await
    }

    /// Starts it again where it was, with the plan as it is now.
    pub(crate) async fn restart_control_plane(&mut self) -> Result<(), Failure> {
        let at = self.control.at.to_string();
        self.control = Process::start("control-plane".to_owned(), &["control-plane", &at], None).await?;
        self.apply().await
    }

    /// The bootstrap of a process that runs as this account (gRFC A27, A29).
    pub(crate) fn bootstrap(&self, account: &str, node: &str) -> String {
        let folder = self.ca.folder();
        let file = |name: &str| folder.join(account).join(name).display().to_string();
        json!({
            "xds_servers": [{
                "server_uri": self.control.at.to_string(),
                "channel_creds": [{ "type": "insecure" }],
            }],
            "node": { "id": node, "cluster": "bookinfo" },
            "certificate_providers": { "mesh": {
                "plugin_name": "file_watcher",
                "config": {
                    "certificate_file": file("cert.pem"),
                    "private_key_file": file("key.pem"),
                    "ca_certificate_file": folder.join("ca.pem").display().to_string(),
                    "refresh_interval": "0.5s",
                },
            }},
            "server_listener_resource_name_template": "bookinfo/%s",
        })
        .to_string()
    }

    /// Ends every process, each after what it has begun.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        for (_, process) in self.replicas.into_iter().rev() {
            process.stop().await?;
        }
        self.control.stop().await?;
        drop(self.folder);
        Ok(())
    }

    async fn add(&mut self, service: Service, version: u32, n: u32) -> Result<(), Failure> {
        let name = format!("{}-v{version}-{n}", service.name());
        let bootstrap = Some(self.bootstrap(service.name(), &name));
        let of_version = format!("v{version}");
        let process = match service {
            Service::Reviews => Process::start(name, &["reviews", &of_version], bootstrap).await?,
            other => Process::start(name, &[other.name()], bootstrap).await?,
        };
        let replica = Replica { service, version, at: process.at };
        self.plan.replicas.push(replica.clone());
        self.replicas.push((replica, process));
        Ok(())
    }

    async fn apply(&mut self) -> Result<(), Failure> {
        self.control.ask(&serde_json::to_string(&self.plan)?).await.map(drop)
    }

    /// Waits until a page has come from each version, so that what is measured later has no cold start in it.
    async fn settle(&mut self) -> Result<(), Failure> {
        for weights in [[0, 0, 1], [0, 1, 0], [1, 0, 0]] {
            self.split(weights).await?;
            crate::load::until_served(self.page(), weights).await?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is under the system's temporary folder: what cannot be removed now goes with that.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
