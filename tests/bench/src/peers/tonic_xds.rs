//! The nearest peer: tonic-xds' channel, fed by our control plane over ADS, mTLS by a `file_watcher` provider.

use serde_json::json;
use tonic_xds::{BootstrapConfig, XdsChannelBuilder, XdsChannelConfig, XdsChannelGrpc, XdsUri};

use super::Site;
use super::tonic::GrpcCaller;
use crate::Result;
use crate::certs::Files;
use crate::echo::EchoClient;
use crate::resources::{NODE, PROVIDER, TARGET};

/// Builds the channel; it connects with the first call.
pub(crate) async fn connect(site: &Site) -> Result<GrpcCaller<XdsChannelGrpc>> {
    let xds = site.xds;
    let files = Files::client(&site.certs);
    let bootstrap = json!({
        // It needs a scheme here, and never connects without one.
        "xds_servers": [{
            "server_uri": format!("http://{xds}"),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {"id": NODE},
        "certificate_providers": {
            PROVIDER: {
                "plugin_name": "file_watcher",
                "config": {
                    "certificate_file": files.cert,
                    "private_key_file": files.key,
                    "ca_certificate_file": files.ca,
                },
            },
        },
    });
    let bootstrap = BootstrapConfig::from_json(&bootstrap.to_string())?;
    let config = XdsChannelConfig::new(XdsUri::parse(TARGET)?).with_bootstrap(bootstrap);
    let channel = XdsChannelBuilder::new(config).build_grpc_channel()?;
    Ok(GrpcCaller::new(EchoClient::new(channel)))
}
