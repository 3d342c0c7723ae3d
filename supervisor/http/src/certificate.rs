//! Whose a client's certificate is. That it is one of the operator's authority the TLS handshake has checked; here its name is read:
//! a URI among the alternative names, `agent://TENANT/NAME` or `tenant://TENANT`. There is exactly one such URI, or nobody is meant.

use aion_types::{AgentName, AgentUri, TenantId};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// A client with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) tenant: TenantId,
    /// None: it speaks for each of the tenant's agents.
    pub(crate) agent: Option<AgentName>,
    /// Seconds since 1970: a connection may outlive its certificate.
    pub(crate) until: i64,
}

enum Name {
    Tenant(TenantId),
    Agent(AgentUri),
}

fn name(uri: &str) -> Option<Name> {
    match uri.strip_prefix("tenant://") {
        Some(tenant) => TenantId::parse(tenant).ok().map(Name::Tenant),
        None => AgentUri::parse(uri).ok().map(Name::Agent),
    }
}

/// Reads a certificate; none: it names nobody that AION could know.
pub(crate) fn holder(der: &[u8]) -> Option<Holder> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with("agent://") || uri.starts_with("tenant://") => Some(*uri),
        _ => None,
    });
    let (uri, until) = (uris.next()?, certificate.validity().not_after.timestamp());
    if uris.next().is_some() {
        return None;
    }
    Some(match name(uri)? {
        Name::Tenant(tenant) => Holder { tenant, agent: None, until },
        Name::Agent(uri) => Holder { tenant: uri.tenant, agent: Some(uri.name), until },
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn made(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn one_name_is_read() {
        let agent = holder(&made(&["https://other.example", "agent://t/a"])).unwrap();
        assert_eq!((agent.tenant.as_str(), agent.agent.unwrap().as_str()), ("t", "a"));
        let tenant = holder(&made(&["tenant://t"])).unwrap();
        assert_eq!((tenant.tenant.as_str(), tenant.agent), ("t", None));
        assert!(tenant.until > 0);
    }

    #[test]
    fn what_is_not_clear_is_nobody() {
        for uris in [
            &[][..],
            &["https://other.example"],
            &["agent://t/a", "agent://t/b"],
            &["agent://t/a", "tenant://t"],
            &["agent://t"],
            &["tenant://"],
            &["tenant://t/a"],
        ] {
            assert_eq!(holder(&made(uris)), None, "{uris:?}");
        }
        assert_eq!(holder(b"nonsense"), None);
        let mut longer = made(&["tenant://t"]);
        longer.push(0);
        assert_eq!(holder(&longer), None);
    }
}
