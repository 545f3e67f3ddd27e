//! The README's recipe for a control plane on a laptop, to its end: `mesh-control`, a server, a client.

#![expect(clippy::unwrap_used, reason = "what a test needs to begin is there, or the test fails")]

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_xds::server::command::{Command as Control, CommandError, Output};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::task::JoinSet;

const HELLO: &str = include_str!("../hello.yaml");

/// What `mesh-control` has said.
#[derive(Debug, Clone, Default)]
struct Said(Arc<(Mutex<Vec<String>>, Notify)>);

impl Said {
    fn output(&self) -> Output {
        let said = self.clone();
        Output::new(move |line| {
            said.0.0.lock().unwrap().push(line.to_owned());
            said.0.1.notify_one();
        })
    }

    /// Waits for a line that a function knows.
    async fn until<T>(&self, known: impl Fn(&str) -> Option<T>) -> T {
        loop {
            if let Some(found) = self.0.0.lock().unwrap().iter().find_map(|line| known(line)) {
                return found;
            }
            self.0.1.notified().await;
        }
    }
}

async fn control(args: &[&str], output: Output) -> Result<(), CommandError> {
    let command = Control::parse(args.iter().map(OsString::from)).unwrap();
    command.run(output, std::future::pending()).await
}

fn hello_tonic(bootstrap: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hello_tonic"));
    command.args(args).env_remove("GRPC_XDS_BOOTSTRAP").env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap);
    command.stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// `hello.yaml`, but for a port that is free.
fn put_hello(directory: &Path, address: &str) {
    let port = address.rsplit(':').next().unwrap();
    let text = HELLO.replace("127.0.0.1:50051", address);
    let text = text.replace("port_value: 50051", &format!("port_value: {port}"));
    fs::write(directory.join("hello.yaml"), text).unwrap();
}

async fn recipe() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    fs::write(directory.path().join("hello.yaml"), HELLO).unwrap();
    let checked = Said::default();
    let check = control(&["--check", path], checked.output()).await;
    assert!(check.is_ok(), "{check:?} {checked:?}");

    // On every address, as a laptop that others are to reach would: what is printed can be connected to.
    let said = Said::default();
    let mut tasks = JoinSet::new();
    let (output, of) = (said.output(), path.to_owned());
    tasks.spawn(async move { control(&["--listen", "0.0.0.0:0", "--interval", "10", &of], output).await });
    let bootstrap = said
        .until(|line| Some(line.split_once("GRPC_XDS_BOOTSTRAP_CONFIG='")?.1.strip_suffix('\'')?.to_owned()))
        .await;

    let mut server = hello_tonic(&bootstrap, &["server", "127.0.0.1:0"]).spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    let address = first.strip_prefix("a greeter on ").unwrap();
    put_hello(directory.path(), address);
    let added = format!("listener \"grpc/server?xds.resource.listening_address={address}\" added");
    said.until(|line| (line == added).then_some(())).await;

    // The server may not have heard yet, and then a call fails, as it should.
    loop {
        let client = hello_tonic(&bootstrap, &["client"]).output().await.unwrap();
        if client.status.success() {
            assert_eq!(String::from_utf8(client.stdout).unwrap(), "Hello mesh!\n");
            break;
        }
    }
    assert!(server.try_wait().unwrap().is_none(), "it goes on serving");
}

#[tokio::test]
async fn the_recipe_of_the_readme_ends_with_a_greeting() {
    tokio::time::timeout(Duration::from_secs(60), recipe()).await.expect("a greeting within a minute");
}
