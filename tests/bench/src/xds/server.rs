//! The server child: control plane, wire, endpoints.

use std::io::BufRead as _;
use std::time::{Duration, Instant};

use mesh_tests::relay::{Relay, Wire};
use mesh_xds::server::{Cluster, ControlPlane, Endpoints, Listener, Route, RouteConfig, VirtualHost};

use super::backend::Backend;
use super::{Counted, LISTENER, Listening, Pushed, Pushes, Server, ServerOrder, nanos};
use crate::Result;
use crate::role::{listen, runtime, say};

/// By how much the slow server delays each piece of up to 64 KiB.
const DELAY: Duration = Duration::from_millis(2);

/// How long the first request after a push may take.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// The role: obeys until the driver closes the standard input.
pub(crate) fn role(kind: Server, clusters: usize, endpoints: usize) -> Result<()> {
    runtime()?.block_on(async {
        let backend = Backend::start().await?;
        let control = ControlPlane::new();
        let mut world = World { control, backend, next: 0 };
        world.fill(clusters, endpoints);
        let (listener, port) = listen().await?;
        let direct = ([127, 0, 0, 1], port).into();
        let serving = world.control.clone();
        tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
        let wire = match kind {
            Server::Ours => Wire::Plain,
            Server::Slow => Wire::Slow(DELAY),
            Server::WritesFirst => Wire::WritesFirst,
        };
        let relay = Relay::start(direct, wire).await?;
        say(&Listening { direct, wire: relay.address() })?;
        let mut orders = orders();
        while let Some(order) = orders.recv().await {
            match serde_json::from_str(&order)? {
                ServerOrder::Push(pushes) => say(&world.push(pushes).await)?,
                ServerOrder::Count => {
                    let passed = relay.passed();
                    say(&Counted {
                        connections: passed.connections,
                        requests: passed.requests,
                        bytes_down: passed.bytes_down,
                    })?;
                }
                ServerOrder::Cut => relay.cut(),
            }
        }
        Ok(())
    })
}

/// The lines of the standard input, read beside the runtime.
fn orders() -> tokio::sync::mpsc::Receiver<String> {
    let (sender, orders) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    orders
}

struct World {
    control: ControlPlane,
    backend: Backend,
    /// Addresses given away so far.
    next: u32,
}

impl World {
    /// One listener, one route for each cluster, and endpoints that no other cluster has.
    fn fill(&mut self, clusters: usize, endpoints: usize) {
        let control = self.control.clone();
        control.edit(|edit| {
            let mut host = VirtualHost::any();
            for i in 0..clusters {
                let name = name(i);
                host = host.route(Route::prefix(format!("/c{i}.Echo/")).cluster(&name));
                let addresses: Vec<_> = (0..endpoints).map(|_| self.address()).collect();
                edit.set(Cluster::eds(name).endpoints(Endpoints::of(addresses)));
            }
            edit.set(Listener::client(LISTENER).rds("scale"));
            edit.set(RouteConfig::new("scale").host(host));
        });
    }

    async fn push(&mut self, pushes: Pushes) -> Pushed {
        let mut pushed = Pushed { after_ns: Vec::new(), lost: 0 };
        let mut tick = tokio::time::interval(Duration::from_millis(pushes.every_ms.max(1)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let until = Instant::now() + Duration::from_millis(pushes.within_ms);
        for nth in 1..=pushes.times {
            tick.tick().await;
            if Instant::now() > until {
                break;
            }
            let addresses: Vec<_> = (0..pushes.clusters).map(|_| self.address()).collect();
            self.backend.watch(addresses.iter().take(pushes.watched).copied());
            self.control.edit(|edit| {
                for (i, address) in addresses.iter().enumerate() {
                    edit.set(Endpoints::of([*address]).named(name(i)));
                }
            });
            // The push is written by another task of this thread, which has not had its turn yet.
            let began = Instant::now();
            if pushes.watched > 0 && (pushes.each || nth == pushes.times) {
                match self.backend.all_seen(LOST_AFTER).await {
                    Some(seen) => pushed.after_ns.push(nanos(seen - began)),
                    None => pushed.lost += 1,
                }
            }
        }
        pushed
    }

    fn address(&mut self) -> std::net::SocketAddr {
        self.next += 1;
        self.backend.address(self.next)
    }
}

fn name(cluster: usize) -> String {
    format!("cluster-{cluster}")
}
