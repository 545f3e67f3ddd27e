//! The grpcio processes: each is a child that dies with its handle, and is spoken to in lines.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;

use mesh_tests::ca::Identity;
use mesh_tests::echo::{CHAT, DOWNLOAD, EchoReply, EchoRequest, UNARY, UPLOAD};
use mesh_tests::fleet::Fleet;
use mesh_tests::net::Port;
use mesh_tests::wait::soon;
use mesh_xds::Kind;
use prost::Message as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::lab::{self, CLIENT_KINDS, Lab, SHOP, hex};

/// grpcio as a client of `shop`.
#[derive(Debug)]
pub(crate) struct Client {
    process: Process,
}

/// A call that it is to make.
#[derive(Debug)]
pub(crate) struct Call {
    method: &'static str,
    shape: &'static str,
    requests: Vec<EchoRequest>,
    metadata: BTreeMap<String, String>,
    timeout: f64,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status, as gRPC spells it.
    pub(crate) code: String,
    /// Its message.
    pub(crate) details: String,
    /// What was received before.
    pub(crate) replies: Vec<EchoReply>,
}

/// grpcio as a server of Echo.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    port: Port,
}

#[derive(Debug)]
struct Process {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    child: Child,
}

// === impl Client ===

impl Client {
    /// Starts it, and waits until it has accepted the whole configuration of `shop`.
    pub(crate) async fn start(lab: &Lab, fleet: &Fleet, node: &str, identity: Option<&Identity>) -> Self {
        let bootstrap = lab::bootstrap(fleet, node, identity);
        let mut process = Process::start(lab, "grpcio_client.py", &[SHOP], &bootstrap);
        process.alive(lab::accepted(fleet, node, CLIENT_KINDS)).await;
        Self { process }
    }

    /// Makes a call, and waits for its end.
    pub(crate) async fn call(&mut self, call: Call) -> Answer {
        let Call { method, shape, requests, metadata, timeout } = call;
        let requests: Vec<_> = requests.iter().map(|request| hex(&request.encode_to_vec())).collect();
        let command = serde_json::json!({
            "method": method, "shape": shape, "requests": requests, "metadata": metadata, "timeout": timeout,
        });
        self.process.tell(&command.to_string()).await;
        let line = self.process.line().await;
        let answer: Value = serde_json::from_str(&line).expect("a line of JSON");
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let replies = answer["replies"].as_array().expect("a list");
        let replies = replies.iter().map(|reply| decode(reply.as_str().expect("hex"))).collect();
        Answer { code: text("code"), details: text("details"), replies }
    }

    /// Makes a unary call that has to succeed.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) async fn say(&mut self, text: &str) -> EchoReply {
        self.call(Call::unary(EchoRequest::say(text))).await.ok().remove(0)
    }
}

// === impl Call ===

impl Call {
    /// One request, one reply.
    pub(crate) fn unary(request: EchoRequest) -> Self {
        Self::new(UNARY, "unary_unary", vec![request])
    }

    /// Many requests, one reply.
    pub(crate) fn upload(requests: Vec<EchoRequest>) -> Self {
        Self::new(UPLOAD, "stream_unary", requests)
    }

    /// One request, many replies.
    pub(crate) fn download(request: EchoRequest) -> Self {
        Self::new(DOWNLOAD, "unary_stream", vec![request])
    }

    /// Many requests, many replies.
    pub(crate) fn chat(requests: Vec<EchoRequest>) -> Self {
        Self::new(CHAT, "stream_stream", requests)
    }

    /// With a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// With another deadline.
    pub(crate) fn timeout(self, seconds: f64) -> Self {
        Self { timeout: seconds, ..self }
    }

    fn new(method: &'static str, shape: &'static str, requests: Vec<EchoRequest>) -> Self {
        Self { method, shape, requests, metadata: BTreeMap::new(), timeout: 15.0 }
    }
}

// === impl Answer ===

impl Answer {
    /// The replies of a call that has to succeed.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub(crate) fn ok(self) -> Vec<EchoReply> {
        assert_eq!(self.code, "OK", "{}", self.details);
        self.replies
    }

    /// The message of a call that has to fail with a status.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub(crate) fn failed(self, code: &str) -> String {
        assert_eq!(self.code, code, "{}", self.details);
        self.details
    }
}

// === impl Server ===

impl Server {
    /// Starts it on a port of its own, and waits until it has accepted the listener that the fleet has for it, and the
    /// listener's routes.
    pub(crate) async fn start(
        lab: &Lab,
        fleet: &Fleet,
        (name, port): (&str, Port),
        identity: Option<&Identity>,
    ) -> Self {
        let bootstrap = lab::bootstrap(fleet, name, identity);
        let arguments = [name, &port.address().to_string()];
        let process = Process::start(lab, "grpcio_server.py", &arguments, &bootstrap);
        let mut server = Self { process, port };
        server.event("started").await;
        server.process.alive(lab::accepted(fleet, name, &[Kind::Listener, Kind::Route])).await;
        server
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Waits for the next thing that it says, which has to be this.
    pub(crate) async fn event(&mut self, event: &str) {
        assert_eq!(self.process.line().await, event);
    }

    /// Lets every held call go on.
    pub(crate) async fn release(&mut self) {
        self.process.tell("release").await;
    }

    /// Begins to stop: no new calls, those in flight may finish.
    pub(crate) async fn stop(&mut self) {
        self.process.tell("stop").await;
    }
}

// === impl Process ===

impl Process {
    fn start(lab: &Lab, script: &str, arguments: &[&str], bootstrap: &str) -> Self {
        let mut child = Command::new(&lab.python)
            .arg(lab.scripts.join(script))
            .args(arguments)
            .env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap)
            .env_remove("GRPC_XDS_BOOTSTRAP")
            .env("no_proxy", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { input, output, child }
    }

    /// Waits for something that a process which has ended cannot bring about.
    async fn alive(&mut self, event: impl Future<Output = ()>) {
        tokio::select! {
            () = event => {}
            ended = self.child.wait() => panic!("grpcio ended: {ended:?}"),
        }
    }

    async fn tell(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.input.write_all(line.as_bytes()).await.expect("the process reads");
    }

    async fn line(&mut self) -> String {
        match soon(self.output.next_line()).await.expect("a line of text") {
            Some(line) => line,
            None => panic!("grpcio ended: {:?}", self.child.wait().await),
        }
    }
}

fn decode(text: &str) -> EchoReply {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    EchoReply::decode(bytes.expect("pairs of digits").as_slice()).expect("an EchoReply")
}
