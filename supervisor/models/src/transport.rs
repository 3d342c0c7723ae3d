//! The HTTP clients: one for local backends that can reach nothing but this host, one for all others.
//!
//! Neither follows redirects (a key must not travel on, nor a local call leave), reads proxy variables, or repeats a
//! request on its own. Offline, the second does not exist.

use std::sync::Arc;

use reqwest::{Client, ClientBuilder, redirect};

use crate::loopback::{Lookup, LoopbackOnly};
use crate::{Error, Options, Result};

#[derive(Debug)]
pub(crate) struct Transport {
    local: Client,
    cloud: Option<Client>,
}

impl Transport {
    /// Makes the clients. `lookup` resolves the names of local backends.
    pub(crate) fn new(options: &Options, lookup: Lookup) -> Result<Self> {
        let local = builder(options).dns_resolver(Arc::new(LoopbackOnly(lookup))).build();
        let cloud =
            if options.offline { None } else { Some(builder(options).build().map_err(Error::Setup)?) };
        Ok(Self { local: local.map_err(Error::Setup)?, cloud })
    }

    /// The client for local models or for others; None when there must be none.
    pub(crate) const fn client(&self, local: bool) -> Option<&Client> {
        if local { Some(&self.local) } else { self.cloud.as_ref() }
    }
}

fn builder(options: &Options) -> ClientBuilder {
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .retry(reqwest::retry::never())
        .connect_timeout(options.connect_timeout)
        .user_agent(concat!("aion/", env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback;

    #[test]
    fn offline_there_is_no_client_for_others() {
        for offline in [false, true] {
            let options = Options { offline, ..Options::default() };
            let transport = Transport::new(&options, loopback::system()).unwrap();
            assert_eq!(transport.client(false).is_none(), offline);
            assert!(transport.client(true).is_some());
        }
    }
}
