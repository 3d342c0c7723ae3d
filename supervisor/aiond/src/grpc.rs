//! The door for gRPC over TCP, when the operator wants one: its address and its files, read while that can be done.

use std::net::SocketAddr;
use std::path::Path;

use aion_http::Tls;
use anyhow::{Context as _, Result, bail};

use crate::options::Options;

/// What it is made of.
pub(crate) const OPTIONS: [&str; 4] = ["grpc", "grpc-tls-cert", "grpc-tls-key", "grpc-client-ca"];

/// Where it is, and with what.
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
}

/// None: there is no such door.
pub(crate) fn settings(options: &Options) -> Result<Option<Settings>> {
    let Some(address) = options.grpc else {
        for (flag, given) in [
            ("--grpc-tls-cert", options.grpc_tls_cert.is_some()),
            ("--grpc-tls-key", options.grpc_tls_key.is_some()),
            ("--grpc-client-ca", options.grpc_client_ca.is_some()),
        ] {
            if given {
                bail!("{flag} says nothing without --grpc ADDRESS");
            }
        }
        return Ok(None);
    };
    let tls = match (&options.grpc_tls_cert, &options.grpc_tls_key) {
        (Some(chain), Some(key)) => {
            let clients = options.grpc_client_ca.as_deref().map(read).transpose()?;
            let tls = Tls::new(&read(chain)?, &read(key)?, clients.as_deref());
            Some(tls.context("cannot serve gRPC with TLS")?)
        }
        (None, None) if options.grpc_client_ca.is_some() => {
            bail!("--grpc-client-ca needs --grpc-tls-cert and --grpc-tls-key: certificates are shown in TLS")
        }
        (None, None) => None,
        _ => bail!("--grpc-tls-cert and --grpc-tls-key go together"),
    };
    if tls.is_none() && !address.ip().is_loopback() {
        bail!(
            "--grpc {address}: without TLS only the loopback is served; give --grpc-tls-cert and --grpc-tls-key"
        );
    }
    Ok(Some(Settings { address, tls }))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn of(args: &[&str]) -> Result<Option<Settings>> {
        settings(&Options::try_parse_from([&["aiond"], args].concat())?)
    }

    #[test]
    fn it_is_off_unless_it_is_asked_for_and_plain_only_on_the_loopback() {
        assert!(of(&[]).unwrap().is_none());
        assert!(of(&["--grpc", "127.0.0.1:0"]).unwrap().unwrap().tls.is_none());
        for (args, words) in [
            (&["--grpc", "0.0.0.0:8011"][..], "without TLS"),
            (&["--grpc", "127.0.0.1:0", "--grpc-tls-cert", "/c"], "go together"),
            (&["--grpc", "127.0.0.1:0", "--grpc-client-ca", "/c"], "--grpc-tls-cert"),
            (&["--grpc-client-ca", "/c"], "without --grpc"),
            (&["--grpc", "127.0.0.1:0", "--grpc-tls-cert", "/none", "--grpc-tls-key", "/none"], "/none"),
            (&["--grpc", "localhost"], "invalid"),
        ] {
            let error = of(args).err().unwrap();
            assert!(format!("{error:#}").contains(words), "{args:?}: {error:#}");
        }
    }
}
