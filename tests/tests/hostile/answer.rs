//! What the answer to a response has to be, and whether it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::google::protobuf::Any;
use mesh_tests::wire::WireRequest;
use mesh_xds::testing::{Decoded, decode};
use mesh_xds::{Kind, Protocol, Rules};
use prost::{Message as _, Name as _};

/// One resource of a response that is being made.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// The name beside it (incremental).
    pub(crate) outer: String,
    pub(crate) any: Any,
    /// The paths that were broken in it, where that is known.
    pub(crate) broken: Vec<String>,
}

/// What has to be said of one resource that is refused.
#[derive(Debug)]
struct Complaint {
    /// `; route "name": ` or `; resources[3]: `.
    label: String,
    /// One of these has to follow.
    texts: Vec<String>,
}

/// What the answer has to be.
#[derive(Debug)]
pub(crate) struct Expected {
    kind: Kind,
    total: usize,
    complaints: Vec<Complaint>,
}

// === impl Expected ===

impl Expected {
    pub(crate) fn of(kind: Kind, protocol: Protocol, sent: &[Sent]) -> Self {
        let mut seen = BTreeSet::new();
        let mut complaints = Vec::new();
        for (position, one) in sent.iter().enumerate() {
            let Decoded { name, verdict } = judge(kind, protocol, one);
            let Some(name) = name else {
                let why = cut(verdict.expect_err("what has no name is refused").to_string());
                complaints.push(Complaint { label: format!("; resources[{position}]: "), texts: vec![why] });
                continue;
            };
            let label = format!("; {kind} {name:?}: ");
            if !seen.insert(Arc::clone(&name)) {
                let texts = vec!["is in the response more than once".to_owned()];
                complaints.push(Complaint { label, texts });
                continue;
            }
            match verdict {
                Ok(_) => {
                    assert!(one.broken.is_empty(), "{kind} {name} is accepted in spite of {:?}", one.broken)
                }
                Err(why) if one.broken.is_empty() => {
                    complaints.push(Complaint { label, texts: vec![cut(why.to_string())] });
                }
                Err(_) => {
                    let places = |path: &String| [Some(path.clone()), parent(path)];
                    let places = one.broken.iter().flat_map(places).flatten();
                    complaints
                        .push(Complaint { label, texts: places.map(|path| format!("{path}: ")).collect() });
                }
            }
        }
        Self { kind, total: sent.len(), complaints }
    }

    /// How many resources are refused.
    pub(crate) fn refused(&self) -> usize {
        self.complaints.len()
    }

    /// Compares an answer with what it has to be.
    pub(crate) fn check(&self, answer: &WireRequest) -> Result<(), String> {
        let Self { kind, total, complaints } = self;
        if answer.kind() != Some(*kind) {
            return Err(format!("an answer about {}", answer.type_url));
        }
        let Some(refusal) = &answer.refusal else {
            return complaints.first().map_or(Ok(()), |bad| Err(format!("accepted in spite of {bad:?}")));
        };
        let count = format!("{} of {total} resources refused", complaints.len());
        if !refusal.starts_with(&count) {
            return Err(format!("not {count:?}"));
        }
        for complaint in complaints {
            let mut said =
                refusal.match_indices(&complaint.label).map(|(at, label)| &refusal[at + label.len()..]);
            if !said.any(|said| complaint.texts.iter().any(|text| said.starts_with(text))) {
                return Err(format!("lacks {complaint:?}"));
            }
        }
        Ok(())
    }
}

/// The verdict about one resource as it is sent.
pub(crate) fn judge(kind: Kind, protocol: Protocol, sent: &Sent) -> Decoded {
    let rules = Rules::with_providers([Arc::from("default")]);
    match protocol {
        Protocol::StateOfTheWorld => decode(kind, &sent.any.type_url, &sent.any.value, &rules),
        Protocol::Incremental => {
            let wrapper = Resource {
                name: sent.outer.clone(),
                resource: Some(sent.any.clone()),
                ..Resource::default()
            };
            decode(kind, &Resource::type_url(), &wrapper.encode_to_vec(), &rules)
        }
    }
}

fn parent(path: &str) -> Option<String> {
    crate::breaks::parent(path).map(str::to_owned)
}

/// The text of one refused resource is bounded.
fn cut(mut text: String) -> String {
    const LONGEST: usize = 1024;
    while text.len() > LONGEST {
        text.pop();
    }
    text
}
